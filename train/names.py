"""Trained arrays by name, as checkpoints, errors and the weight decay call them."""

from typing import Any

import jax
from flax import nnx


def flat_names(trained: nnx.State) -> dict[str, jax.Array]:
    """Trained arrays by name: "kind.target.lora_a" for LoRA, the table's path otherwise."""
    return {name_of(path): variable.get_value() for path, variable in trained.flat_state()}


def with_values(trained: nnx.State, values: dict[str, Any]) -> nnx.State:
    """`trained` with `values`, by name, in place of its own."""
    flat = [(path, variable.replace(values[name_of(path)])) for path, variable in trained.flat_state()]
    return nnx.State.from_flat_path(flat)


def name_of(path: tuple[Any, ...]) -> str:
    parts = [str(part) for part in path if part != "stacks"]
    last = parts.pop()
    if last == "w":
        return ".".join(parts)
    return ".".join([*parts, last.removeprefix("w_")])
