"""Every implementation of attention equals the exact one, its gradients too; and which one is chosen."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from models.attention.blockwise import blockwise
from models.attention.dispatch import Attention
from models.attention.exact import attend, visible
from models.attention.kernels import cudnn_takes, splash, splash_block
from models.spec import LayerSpec, Rope

PLAIN = LayerSpec("sliding", 4, 2, 128, 8, Rope(1e4, 64), scale=0.09)
REPO = Path(__file__).resolve().parents[3]
Implementation = Callable[..., jax.Array]


def inputs(t: int, spec: LayerSpec) -> tuple[jax.Array, ...]:
    """q, k, v, segments and positions of two rows: segments of uneven length, then padding (segment 0)."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, t, heads, spec.head_dim)) for heads in (spec.heads, spec.kv_heads, spec.kv_heads))
    segments, positions = np.zeros((2, t), np.int32), np.zeros((2, t), np.int32)
    for row, ends in enumerate(((t // 3, t // 2, t), (t - 7,))):
        start = 0
        for number, end in enumerate(ends, 1):
            segments[row, start:end] = number
            positions[row, start:end] = np.arange(end - start)
            start = end
    return *(jnp.asarray(x, jnp.float32) for x in (q, k, v)), jnp.asarray(segments), jnp.asarray(positions)


def differences(got: Implementation, t: int, spec: LayerSpec) -> float:
    """Largest difference from the exact implementation, of outputs and of gradients, padding aside."""
    q, k, v, segments, positions = inputs(t, spec)
    mask = visible(positions, positions, spec.window, segments[:, :, None] == segments[:, None, :])
    real = (segments > 0)[:, :, None, None]

    def both(f: Implementation) -> list[jax.Array]:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = jnp.where(real, f(q, k, v), 0)
            return jnp.sum(out * jnp.cos(out)), out

        grads, out = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)
        return [out, *grads]

    want = both(lambda q, k, v: attend(q, k, v, mask, spec))
    found = both(lambda q, k, v: got(q, k, v, segments, spec))
    return max(float(jnp.abs(a - b).max()) for a, b in zip(want, found, strict=True))


@pytest.mark.parametrize("t", [pytest.param(37, marks=pytest.mark.slow), 300])
@pytest.mark.parametrize(("window", "cap"), [(None, None), (1, None), (40, 5.0), (64, None), (1000, 5.0)])
def test_blocks_of_queries(t: int, window: int | None, cap: float | None) -> None:
    spec = replace(PLAIN, head_dim=16, window=window, cap=cap)
    assert differences(lambda *a: blockwise(*a, block=32), t, spec) < 2e-5


@pytest.mark.parametrize(("window", "cap"), [(None, None), (100, 5.0)])
def test_splash(window: int | None, cap: float | None) -> None:
    spec = replace(PLAIN, window=window, cap=cap)
    assert differences(lambda *a: splash(*a, mesh=None, interpret=True), 256, spec) < 2e-5


def test_the_choice() -> None:
    here = Attention()
    assert here.choose(PLAIN, 100, jnp.dtype("float32")) == "exact"
    assert here.choose(PLAIN, 4096, jnp.dtype("float32")) == "blockwise"
    assert Attention("exact").choose(PLAIN, 4096, jnp.dtype("float32")) == "exact"
    for name in ("splash", "cudnn"):
        with pytest.raises(UserError, match=f"{name} attention does not take cpu, 4096 tokens, head dim 128"):
            Attention(name).choose(PLAIN, 4096, jnp.dtype("bfloat16"))


@pytest.mark.parametrize(
    ("head_dim", "t", "block"), [(256, 2048, 512), (512, 3072, 512), (256, 768, 256), (128, 384, 128), (64, 512, None)]
)
def test_blocks_that_compile(head_dim: int, t: int, block: int | None) -> None:
    assert splash_block(replace(PLAIN, head_dim=head_dim), t) == block
    assert splash_block(PLAIN, 1000) is None


def test_what_cudnn_takes() -> None:
    assert cudnn_takes(PLAIN, jnp.dtype("bfloat16"))
    assert not cudnn_takes(PLAIN, jnp.dtype("float32"))
    assert not cudnn_takes(replace(PLAIN, cap=50.0), jnp.dtype("bfloat16"))
    assert not cudnn_takes(replace(PLAIN, head_dim=256), jnp.dtype("bfloat16"))


@pytest.mark.aot
def test_the_tpu_compiler_takes_it() -> None:
    """A training step of a shrunken Gemma 4 31B on four v5p chips; in a child, for the compiler can abort it."""
    env = {**os.environ, "PYTHONPATH": str(REPO), "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    env |= {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5p-8", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    child = [sys.executable, str(Path(__file__).with_name("aot_child.py"))]
    done = subprocess.run(child, env=env, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sliding splash, global splash" in done.stdout
