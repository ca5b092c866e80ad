"""Products whose backward products take operands of the weights' type, and layers taken from stacks without a copy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.quant.contract import contract, layer_of
from tests.shapes import operand_types

EQUATIONS = {
    "id,od->io": ((6, 8), (5, 8)),
    "btd,skhd->btskh": ((2, 3, 8), (2, 3, 4, 8)),
    "bkqh,bkhs->bkqs": ((2, 3, 5, 8), (2, 3, 8, 4)),
}


def operands(equation: str, dtype: str) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 2)
    return [jax.random.normal(k, shape).astype(dtype) for k, shape in zip(keys, EQUATIONS[equation], strict=True)]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_products_and_gradients_are_those_of_an_einsum(equation: str) -> None:
    a, b = operands(equation, "float32")
    mine, theirs = (
        jax.value_and_grad(lambda a, b, f=f: jnp.sum(jnp.sin(f(equation, a, b))), (0, 1))(a, b)
        for f in (contract, jnp.einsum)
    )
    for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_every_product_of_bfloat16_operands_takes_bfloat16_and_gives_float32() -> None:
    def loss(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(contract("id,od->io", a, b)))

    program = jax.jit(jax.grad(loss, (0, 1))).lower(*operands("id,od->io", "bfloat16")).as_text()
    assert operand_types(program) == [("bf16", "bf16", "f32")] * 3


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_a_layer_of_a_stack_is_that_layer(platform: str, dtype: str) -> None:
    stack = jnp.arange(24).reshape(3, 2, 4).astype(dtype)
    found = jax.jit(lambda stack, i: layer_of(stack, i, platform))(stack, 1)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, stack[1])
