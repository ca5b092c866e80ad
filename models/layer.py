"""One decoder layer. Weights are named as the table's rows; attention over a cache or a sequence is the caller's."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from models.attention.exact import rotate
from models.attention.kernels import KEPT
from models.experts import mix, route
from models.leaf import Leaf, equation
from models.mesh import whole
from models.quant.contract import contract
from models.quant.weight import Quantized, plain, product
from models.spec import LayerSpec

T = TypeVar("T")
ACTIVATIONS = {"gelu": partial(jax.nn.gelu, approximate=True), "silu": jax.nn.silu}

Remat = Literal["none", "full", "outputs", "products"]
OUTPUTS = (KEPT, "o", "down")
POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "outputs": jax.checkpoint_policies.save_only_these_names(*OUTPUTS),
    "products": jax.checkpoint_policies.save_only_these_names(*OUTPUTS, "gate_up"),
}
"""What the backward pass finds kept, by the names that layers and attention give."""

KV = tuple[jax.Array, jax.Array]
"""Keys and values, [b t k h] each."""
Attend = Callable[[jax.Array, KV | None], jax.Array]
"""(q [b t n h], the layer's own keys and values or None where it borrows) -> [b t n h]"""


class Projection(nnx.Module):
    """A matrix product in the weight's dtype that accumulates in float32, with an adapter or without.

    Weights are in Hugging Face's order, (out, in), so that loading is copying. `flat` computes the same as plain
    products of matrices: XLA on CPU rearranges operands of more than two axes at every call, which makes a decode step
    three times slower, and an adapted layer's gradient twice. It must be off where tp shards an inner axis:
    matrices would have to be put together from all devices. On a `mesh`, weights are put together from the devices of
    fsdp where they are used.
    """

    w_lora_a: nnx.LoRAParam[jax.Array]
    w_lora_b: nnx.LoRAParam[jax.Array]

    def __init__(
        self,
        equation: str,
        w: jax.Array | Quantized,
        rounded: bool = True,
        flat: bool = True,
        mesh: Mesh | None = None,
    ):
        self.equation = equation
        self.rounded = rounded
        self.flat = flat
        self.mesh = mesh
        self.lora_scale: float | None = None
        self.w = nnx.Param(w)

    def adapt(self, a: Any, b: Any, scale: float) -> None:
        """Add scale * (x A) B, A [in r] and B [r out] (arrays, or shapes) with the weight's axes (Hu et al. 2021)."""
        self.w_lora_a, self.w_lora_b, self.lora_scale = nnx.LoRAParam(a), nnx.LoRAParam(b), scale

    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.flat:
            return self._apart(x, self.equation, slice(None))
        w = self._whole(self.w[...], self.letters[1])
        x = x.astype(w.dtype)
        if isinstance(w, Quantized):
            out = product(x, w)
        else:
            rows = _rows(x)
            out = contract("id,od->io", rows, w.reshape(-1, rows.shape[1]))
            out = out.reshape(*x.shape[:2], *w.shape[: w.ndim - x.ndim + 2])
        if self.lora_scale is not None:
            a, b = self._lora()
            low = contract("id,dr->ir", _rows(x), a.reshape(-1, a.shape[-1])).astype(x.dtype)
            out += self.lora_scale * contract("ir,ro->io", low, b.reshape(low.shape[1], -1)).reshape(out.shape)
        return out.astype(x.dtype) if self.rounded else out

    def each(self, x: jax.Array) -> Sequence[jax.Array]:
        """The products with both matrices of a weight that stacks two (letter s first)."""
        if self.flat:
            both = self(x)
            return both[:, :, 0], both[:, :, 1]
        return [self._apart(x, self.equation.replace("s", ""), i) for i in (0, 1)]

    @property
    def letters(self) -> tuple[str, str, str]:
        """Axes of the activations, of the weight and of the product."""
        operands, out = self.equation.split("->")
        given, weight = operands.split(",")
        return given, weight, out

    def _apart(self, x: jax.Array, equation: str, part: int | slice) -> jax.Array:
        """Over named axes, for `part` of the weight's first one. An update is added in the type of the result."""
        given, weight, _ = self.letters
        w = self._whole(self.w[...], weight)
        w = w if isinstance(part, slice) else w[part]
        x = x.astype(w.dtype)
        out = product(x, w, equation) if isinstance(w, Quantized) else contract(equation, x, w)
        out = out.astype(x.dtype) if self.rounded else out
        if self.lora_scale is None:
            return out
        a, b = self._lora()
        b = b if isinstance(part, slice) else b[:, part]
        low = contract(f"{given},{given[2:]}r->btr", x, a).astype(x.dtype)
        made = equation.split("->")[1]
        return out + (self.lora_scale * contract(f"btr,r{made[2:]}->{made}", low, b)).astype(out.dtype)

    def _lora(self) -> tuple[jax.Array, jax.Array]:
        given, _, out = self.letters
        return self._whole(self.w_lora_a[...], f"{given[2:]}r"), self._whole(self.w_lora_b[...], f"r{out[2:]}")

    def _whole(self, w: T, letters: str) -> T:
        return jax.tree.map(lambda array: whole(self.mesh, letters, array), w)


def _rows(x: jax.Array) -> jax.Array:
    """[b t ...] as a matrix of a row for each token."""
    return x.reshape(-1, math.prod(x.shape[2:]))


def rms_norm(x: jax.Array, weight: jax.Array | None, eps: float, offset: float = 0.0) -> jax.Array:
    """Root-mean-square norm over the last axis, in float32 (Zhang and Sennrich 2019)."""
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    if weight is not None:
        y *= jnp.expand_dims(offset + weight.astype(jnp.float32), range(x.ndim - 1))
    return y.astype(x.dtype)


class Layer(nnx.Module):
    """`weights` maps rows' names ("q", "input_norm", ...) to arrays, `leaves` to their rows in the table."""

    q: Projection
    kv: Projection
    o: Projection
    gate_up: Projection
    down: Projection
    input_norm: nnx.Param[jax.Array]

    def __init__(
        self,
        spec: LayerSpec,
        eps: float,
        offset: float,
        leaves: Mapping[str, Leaf],
        weights: Mapping[str, jax.Array | Quantized],
        flat: bool = True,
        mesh: Mesh | None = None,
    ):
        self.spec = spec
        self.eps = eps
        self.offset = offset
        for name, value in weights.items():
            leaf = leaves[name]
            if leaf.use.product:
                made = Projection(equation(leaf), value, not leaf.use.float32_out, flat, mesh)
            else:
                made = nnx.Param(value)
            setattr(self, name, made)

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        return rms_norm(x, getattr(self, name)[...], self.eps, self.offset)

    def __call__(
        self, x: jax.Array, positions: jax.Array, attend: Attend, per_layer_input: jax.Array | None = None
    ) -> jax.Array:
        """The residual stream x [b t d] in float32, positions [b t], per_layer_input [b t p] -> [b t d]."""
        spec = self.spec
        h = self.norm("input_norm", x)
        q = self.q(h)
        q = rotate(self.norm("q_norm", q) if spec.qk_norm else q, positions, spec.rope)
        own = None if spec.shared_kv is not None else self.keys_values(h, positions)
        out = checkpoint_name(self.o(attend(q, own)), "o")
        x = x + (self.norm("post_attention_norm", out) if spec.post_norms else out)
        out = self.mlp(self.norm("pre_mlp_norm", x))
        if spec.experts is not None:
            out = self.norm("post_dense_norm", out) + self.norm("post_experts_norm", self.mixture(x))
        x = x + (self.norm("post_mlp_norm", out) if spec.post_norms else out)
        if per_layer_input is not None:
            x = x + self.norm(
                "per_layer_input_norm",
                self.sub("per_layer_projection")(self.activate(self.sub("per_layer_input_gate")(x)) * per_layer_input),
            )
        return x * self.sub("scalar")[...].astype(x.dtype) if spec.scalar else x

    def sub(self, name: str) -> Any:
        """A projection or weight that only some specs have."""
        return getattr(self, name)

    def activate(self, x: jax.Array) -> jax.Array:
        return ACTIVATIONS[self.spec.activation](x)

    def keys_values(self, h: jax.Array, positions: jax.Array) -> KV:
        k, v = [self.kv(h)] * 2 if self.spec.k_is_v else self.kv.each(h)
        k = rotate(self.norm("k_norm", k) if self.spec.qk_norm else k, positions, self.spec.rope)
        return k, rms_norm(v, None, self.eps) if self.spec.v_norm else v

    def mlp(self, h: jax.Array) -> jax.Array:
        gate, up = (checkpoint_name(each, "gate_up") for each in self.gate_up.each(h))
        return checkpoint_name(self.down(self.activate(gate) * up), "down")

    def mixture(self, x: jax.Array) -> jax.Array:
        """The experts' output for x [b t d], which is not normed yet."""
        assert self.spec.experts is not None
        scaled = rms_norm(x, self.sub("router_scale")[...], self.eps)
        scaled = scaled * jnp.asarray(x.shape[-1] ** -0.5, x.dtype)
        chosen, weights = route(self.sub("router")(scaled), self.sub("expert_scale")[...], self.spec.experts)
        h = self.norm("pre_experts_norm", x)
        gate_up, down = (plain(self.sub(f"experts_{name}")[...]) for name in ("gate_up", "down"))
        return mix(h, chosen, weights, gate_up, down, self.activate)
