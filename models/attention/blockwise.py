"""Attention for long rows: a block of queries at a time, so that memory grows with the row's length, not its square.

Each block takes an exact softmax over the keys it may see: a window's worth, or all up to the end of its quarter of the
row. The backward pass computes a block's scores again.
"""

import jax
import jax.numpy as jnp

from models.attention.exact import attend, visible
from models.spec import LayerSpec

BLOCK = 128
QUARTERS = 4
"""Runs of blocks with one number of keys each; of what causality masks, a quarter is computed all the same."""


def blockwise(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None, spec: LayerSpec, block: int = BLOCK
) -> jax.Array:
    """As `attend` for rows whose positions follow each other within a segment.

    q [b t n h]; k, v [b t k h]; segments [b t] -> [b t n h].
    """
    b, t, n, h = q.shape
    count = -(-t // block)
    if segments is None:
        segments = jnp.ones((b, t), jnp.int32)
    q, k, v = (jnp.pad(x, ((0, 0), (0, count * block - t), (0, 0), (0, 0))) for x in (q, k, v))
    segments = jnp.pad(segments, ((0, 0), (0, count * block - t)), constant_values=-1)
    most = count if spec.window is None else min(count, 1 - (-(spec.window - 1) // block))

    def run(first: int, last: int) -> jax.Array:
        span = min(last, most) * block

        @jax.checkpoint
        def one(i: jax.Array) -> jax.Array:
            at = i * block
            start = jnp.maximum(at + block - span, 0)
            mine, theirs = (
                jax.lax.dynamic_slice_in_dim(segments, *where, axis=1) for where in ((at, block), (start, span))
            )
            mask = visible((at + jnp.arange(block))[None], (start + jnp.arange(span))[None], spec.window)
            mask = mask & (mine[:, :, None] == theirs[:, None, :])
            keys, values = (jax.lax.dynamic_slice_in_dim(x, start, span, axis=1) for x in (k, v))
            return attend(jax.lax.dynamic_slice_in_dim(q, at, block, axis=1), keys, values, mask, spec)

        return jax.lax.map(one, jnp.arange(first, last))

    per_run = count if most < count else -(-count // QUARTERS)
    out = jnp.concatenate([run(i, min(i + per_run, count)) for i in range(0, count, per_run)])
    return out.transpose(1, 0, 2, 3, 4).reshape(b, count * block, n, h)[:, :t]
