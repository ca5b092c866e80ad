"""An adapted projection computes what qwix computes, in both of its forms."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from flax import nnx

from models.layer import Projection

EQUATIONS = {
    "q": "btd,nhd->btnh",
    "kv": "btd,skhd->btskh",
    "k": "btd,khd->btkh",
    "o": "btnh,dnh->btd",
    "gate_up": "btd,sfd->btsf",
    "down": "btf,df->btd",
    "router": "btd,ed->bte",
    "per_layer_input_gate": "btd,pd->btp",
    "per_layer_projection": "btp,dp->btd",
}

SIZES = {"b": 2, "t": 3, "d": 8, "n": 4, "h": 6, "s": 2, "k": 2, "f": 10, "e": 5, "p": 7}
RANK, ALPHA = 3, 12.0


class Plain(nnx.Module):
    def __init__(self, equation: str, w: jax.Array):
        self.equation = equation
        self.w = nnx.Param(w)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.einsum(self.equation, x, self.w[...])


@pytest.mark.parametrize("equation", EQUATIONS.values())
def test_as_qwix(equation: str) -> None:
    rng = np.random.default_rng(0)
    x_axes, w_axes = equation.split("->")[0].split(",")
    x, w = (jnp.asarray(rng.normal(size=[SIZES[a] for a in axes]), jnp.float32) for axes in (x_axes, w_axes))
    provider = qwix.LoraProvider(module_path=".*", rank=RANK, alpha=ALPHA)
    theirs: Any = qwix.apply_lora_to_model(Plain(equation, w), provider, x, rngs=nnx.Rngs(0))
    a, b = (jnp.asarray(rng.normal(size=getattr(theirs, name).shape), jnp.float32) for name in ("w_lora_a", "w_lora_b"))
    theirs.w_lora_a.set_value(a)
    theirs.w_lora_b.set_value(b)
    want = theirs(x)
    assert float(jnp.abs(want - jnp.einsum(equation, x, w)).max()) > 1
    for flat in (False, True):
        ours = Projection(equation, w)
        ours.flat = flat
        ours.adapt(a, b, ALPHA / RANK)
        np.testing.assert_allclose(ours(x), want, atol=1e-4 * math.sqrt(w.size))
