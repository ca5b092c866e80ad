"""Stops a run at the first figure that is no number, before it reaches a checkpoint."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from common.errors import UserError
from train.names import flat_names

LOWER = "lower train.learning_rate, or set clip_norm"


def check_loss(loss: jax.Array | float, step: int, name: str = "loss") -> None:
    """Raises UserError where the loss of `step` is NaN or infinite."""
    if not math.isfinite(value := float(loss)):
        raise UserError(f"the {name} is {value} at step {step}", where="train", fix=LOWER)


def check_state(trained: nnx.State, opt_state: Any, when: str, fix: str = LOWER) -> None:
    """Raises UserError naming the first trained tensor, or state of its optimizer, that holds NaN or infinity."""
    named = flat_names(trained)
    for path, state in jax.tree.leaves_with_path(opt_state, is_leaf=lambda node: isinstance(node, nnx.State)):
        if isinstance(state, nnx.State):
            part = jax.tree_util.keystr(path[-1:]).lstrip(".")
            named |= {f"{name} ({part} of the optimizer)": array for name, array in flat_names(state).items()}
    found = _finite(list(named.values()))
    if bad := [name for name, fine in zip(named, found, strict=True) if not fine]:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"NaN or infinity {when}", where=bad[0] + more, fix=fix)


@jax.jit
def _finite(arrays: list[jax.Array]) -> list[jax.Array]:
    return [jnp.isfinite(array).all() for array in arrays]
