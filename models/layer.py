"""One decoder layer. Weights are named as the table's rows; attention over a cache or a sequence is the caller's."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from models.attention import rotate
from models.spec import LayerSpec

EQUATIONS = {
    "q": "btd,dnh->btnh",
    "kv": "btd,sdkh->sbtkh",
    "k": "btd,dkh->btkh",
    "o": "btnh,nhd->btd",
    "gate_up": "btd,sdf->sbtf",
    "down": "btf,fd->btd",
}

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(q [b t n h], k [b t k h], v [b t k h]) -> [b t n h]"""


class Projection(nnx.Module):
    """A matrix product that accumulates in float32; a module of its own so that qwix can adapt it by name."""

    def __init__(self, equation: str, w: jax.Array):
        self.equation = equation
        self.w = nnx.Param(w)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.einsum(self.equation, x, self.w[...], preferred_element_type=jnp.float32).astype(x.dtype)


def rms_norm(x: jax.Array, weight: jax.Array | None, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis, in float32 (Zhang and Sennrich 2019)."""
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    if weight is not None:
        y *= weight.astype(jnp.float32)
    return y.astype(x.dtype)


class Layer(nnx.Module):
    """`weights` maps row names ("q", "input_norm", ...) to arrays, in the table's axes."""

    q: Projection
    kv: Projection
    o: Projection
    gate_up: Projection
    down: Projection
    input_norm: nnx.Param[jax.Array]
    scalar: nnx.Param[jax.Array]

    def __init__(self, spec: LayerSpec, eps: float, weights: Mapping[str, jax.Array]):
        self.spec = spec
        self.eps = eps
        for name, value in weights.items():
            equation = EQUATIONS.get("k" if name == "kv" and spec.k_is_v else name)
            setattr(self, name, Projection(equation, value) if equation else nnx.Param(value))

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        return rms_norm(x, getattr(self, name)[...], self.eps)

    def __call__(self, x: jax.Array, positions: jax.Array, attend: Attend) -> jax.Array:
        """x [b t d], positions [b t] -> [b t d]."""
        h = self.norm("input_norm", x)
        q = rotate(self.norm("q_norm", self.q(h)), positions, self.spec.rope)
        kv = self.kv(h)
        k, v = (kv, kv) if self.spec.k_is_v else (kv[0], kv[1])
        k = rotate(self.norm("k_norm", k), positions, self.spec.rope)
        v = rms_norm(v, None, self.eps)
        x = x + self.norm("post_attention_norm", self.o(attend(q, k, v)))
        gate, up = self.gate_up(self.norm("pre_mlp_norm", x))
        x = x + self.norm("post_mlp_norm", self.down(jax.nn.gelu(gate, approximate=True) * up))
        return x * self.scalar[...].astype(x.dtype)
