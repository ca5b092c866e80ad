"""Products in the weights' type that accumulate in float32, backwards as forwards."""

from typing import Any

import jax
import jax.numpy as jnp


def contract(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """The einsum of two operands of one type, in float32; every letter stands in two of its three terms at least.

    The result's cotangent is rounded to the operands' type: with one in float32 the backward products would have the
    other operand, a weight among them, converted to float32 and run at half the rate, or less.
    """
    found: Any = _contract(equation, a, b)
    return found


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


_contract = jax.custom_vjp(_product, nondiff_argnums=(0,))


def _forward(equation: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(equation, a, b), (a, b)


def _backward(equation: str, operands: tuple[jax.Array, jax.Array], ct: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = operands
    ct = ct.astype(a.dtype)
    terms, of_ct = equation.split("->")
    of_a, of_b = terms.split(",")
    of_each = _product(f"{of_ct},{of_b}->{of_a}", ct, b), _product(f"{of_ct},{of_a}->{of_b}", ct, a)
    return of_each[0].astype(a.dtype), of_each[1].astype(b.dtype)


_contract.defvjp(_forward, _backward)


def layer_of(stack: jax.Array, number: jax.Array, platform: str) -> jax.Array:
    """One layer's weights of a stack, inside a loop over layers.

    XLA's CPU slices no bfloat16 in a loop: it would convert the whole stack to float32 before. It slices its bits.
    """
    if platform != "cpu" or stack.dtype != jnp.bfloat16:
        return stack[number]
    bits = jax.lax.bitcast_convert_type(stack, jnp.uint16)
    return jax.lax.bitcast_convert_type(bits[number], jnp.bfloat16)
