"""A mixture of experts: every token's chosen experts as grouped products over tokens sorted by expert."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import RaggedDotDimensionNumbers, ragged_dot_general

from models.spec import Experts

BY_EXPERT = RaggedDotDimensionNumbers((((1,), (2,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[0])
"""Rows [i d], grouped by expert, with weights [e o d]."""


def route(scores: jax.Array, per_expert: jax.Array, spec: Experts) -> tuple[jax.Array, jax.Array]:
    """Router scores [b t e] -> chosen experts [b t c] and their weights, float32: shares of the chosen that sum to one,
    each times its expert's scale [e]."""
    shares = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
    weights, chosen = jax.lax.top_k(shares, spec.top_k)
    weights /= jnp.sum(weights, axis=-1, keepdims=True)
    return chosen, weights * per_expert.astype(jnp.float32)[chosen]


def mix(
    x: jax.Array,
    chosen: jax.Array,
    weights: jax.Array,
    gate_up: jax.Array,
    down: jax.Array,
    activate: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """x [b t d], gate_up [e s f d], down [e d f] -> weighted sum of the chosen experts' outputs [b t d]."""
    count = gate_up.shape[0]
    each = chosen.shape[-1]
    order = jnp.argsort(chosen.reshape(-1), stable=True)
    sizes = jnp.bincount(chosen.reshape(-1), length=count).astype(jnp.int32)
    rows = x.reshape(-1, x.shape[-1])[order // each].astype(down.dtype)

    def product(a: jax.Array, w: jax.Array) -> jax.Array:
        return ragged_dot_general(a, w, sizes, BY_EXPERT, preferred_element_type=jnp.float32)

    both = product(rows, gate_up.reshape(count, -1, rows.shape[-1])).astype(down.dtype)
    gate, up = jnp.split(both, 2, axis=-1)
    out = product(activate(gate) * up, down) * weights.reshape(-1)[order][:, None]
    summed = jnp.zeros((rows.shape[0] // each, x.shape[-1]), jnp.float32).at[order // each].add(out)
    return summed.reshape(x.shape).astype(x.dtype)
