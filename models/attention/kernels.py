"""Attention kernels of others: Pallas splash attention on TPU, cuDNN's on GPU. Each says which shapes it takes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_masks
from jax.sharding import Mesh, PartitionSpec

from models.spec import LayerSpec

LANES = 128
ROWS = ("data", "fsdp")
KEPT = "attention"
"""What rematerialisation calls attention's output, and a kernel's sums beside it."""


def splash_block(spec: LayerSpec, t: int) -> int | None:
    """Rows and columns of a block, the largest that compiles; None: the kernel does not take this shape.

    1024 overflows VMEM on v5p: at head dim 512 in the forward pass, at 256 in the backward pass over segments.
    """
    if spec.head_dim % LANES:
        return None
    return next((size for size in (512, 256, LANES) if t % size == 0), None)


def splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array,
    spec: LayerSpec,
    mesh: Mesh | None,
    interpret: bool = False,
) -> jax.Array:
    """As `models.attention.attend`, for rows whose positions follow each other within a segment.

    q [b t n h]; k, v [b t k h]; segments [b t] -> [b t n h]. On a mesh, rows are spread over data and fsdp, heads over
    tp; heads of keys and values that tp does not divide are repeated, or held whole.
    """
    _, t, n, h = q.shape
    size = splash_block(spec, t)
    assert size is not None, "the caller asks splash_block first"
    # Without the barrier, fusing the norms and rotation before it aborts libtpu 0.0.52 at 8192 tokens.
    q, k, v = jax.lax.optimization_barrier((q, k, v))
    heads = None
    if mesh is not None and n % (tp := mesh.shape["tp"]) == 0 and (k.shape[2] % tp == 0 or tp % k.shape[2] == 0):
        heads = "tp"
        k, v = (jnp.repeat(x, max(1, tp // k.shape[2]), axis=2) for x in (k, v))
    window = None if spec.window is None else (spec.window - 1, 0)
    mask = splash_masks.CausalMask((t, t)) if window is None else splash_masks.LocalMask((t, t), window, offset=0)
    blocks = splash_kernel.BlockSizes(
        block_q=size, block_kv=size, block_kv_compute=size,
        block_q_dkv=size, block_kv_dkv=size, block_kv_dkv_compute=size,
        block_q_dq=size, block_kv_dq=size,
    )  # fmt: skip

    def local(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        shared = q.shape[2] // k.shape[2]
        kernel = splash_kernel.make_splash_mqa(
            splash_masks.MultiHeadMask([mask] * shared),
            block_sizes=blocks,
            attn_logits_soft_cap=spec.cap,
            head_shards=1,
            q_seq_shards=1,
            residual_checkpoint_name=KEPT,
            interpret=interpret,
        )
        q = (q * spec.scale).astype(q.dtype).reshape(q.shape[0], t, -1, shared, h).transpose(0, 2, 3, 1, 4)
        k, v = (x.transpose(0, 2, 1, 3) for x in (k, v))
        one_row: Any = jax.vmap(kernel, in_axes=(0, 0, 0, None))
        out = jax.vmap(lambda q, k, v, s: one_row(q, k, v, splash_kernel.SegmentIds(s, s)))(q, k, v, segments)
        return out.transpose(0, 3, 1, 2, 4).reshape(q.shape[0], t, -1, h).astype(q.dtype)

    if mesh is None:
        return local(q, k, v, segments)
    wide, narrow = PartitionSpec(ROWS, None, heads, None), PartitionSpec(ROWS, None)
    spread = partial(jax.shard_map, mesh=mesh, in_specs=(wide, wide, wide, narrow), out_specs=wide, check_vma=False)
    return spread(local)(q, k, v, segments)


def cudnn_takes(spec: LayerSpec, dtype: jnp.dtype) -> bool:
    """Head dims up to 128 on every GPU that has the kernel; half precision; no soft cap."""
    return spec.head_dim <= 128 and spec.head_dim % 8 == 0 and spec.cap is None and dtype.itemsize == 2


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, spec: LayerSpec) -> jax.Array:
    """As `models.attention.attend`: q [b t n h]; k, v [b s k h]; mask [b t s] -> [b t n h]."""
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], scale=spec.scale, implementation="cudnn")
