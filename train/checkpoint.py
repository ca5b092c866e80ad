"""Checkpoints of a training run: Orbax writes them beside, renames, and keeps the latest few.

Each holds `trained` (flat: name -> array, what convert reads), `optimizer` and `loader` (the data iterator's state),
so a run that was cut off continues bit for bit.
"""

import errno
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx


def flat_names(trained: nnx.State) -> dict[str, jax.Array]:
    """Trained arrays by name: "kind.target.lora_a" for LoRA, the table's path otherwise."""
    return {_name(path): variable.get_value() for path, variable in trained.flat_state()}


def _name(path: tuple[Any, ...]) -> str:
    parts = [str(part) for part in path if part != "stacks"]
    last = parts.pop()
    if last == "w":
        return ".".join(parts)
    return ".".join([*parts, last.removeprefix("w_")])


def with_values(trained: nnx.State, values: dict[str, jax.Array]) -> nnx.State:
    """`trained` with the arrays of `values` in place of its own."""
    flat = [(path, variable.replace(values[_name(path)])) for path, variable in trained.flat_state()]
    return nnx.State.from_flat_path(flat)


class Checkpoints:
    def __init__(self, folder: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self.folder = folder.absolute()
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, trained: nnx.State, opt_state: Any, loader: dict[str, Any]) -> None:
        """Write one checkpoint. Raises OSError (ENOSPC) where the disk has no room: before anything is written."""
        arrays = flat_names(trained), _leaves(opt_state)
        # Asked first: on a full disk Orbax's threads print tracebacks, and its error is a ValueError.
        if shutil.disk_usage(self.folder).free < sum(a.nbytes for a in jax.tree.leaves(arrays)):
            raise OSError(errno.ENOSPC, "no room for a checkpoint", str(self.folder))
        self.manager.save(
            step,
            args=ocp.args.Composite(
                trained=ocp.args.StandardSave(arrays[0]),
                optimizer=ocp.args.StandardSave(arrays[1]),
                loader=ocp.args.JsonSave(loader),
            ),
        )
        self.manager.wait_until_finished()

    def restore(self, trained: nnx.State, opt_state: Any) -> tuple[int, nnx.State, Any, dict[str, Any]] | None:
        """(step, trained, optimizer state, loader state) of the latest checkpoint, placed as the arguments are."""
        step = self.manager.latest_step()
        if step is None:
            return None
        abstract = (_abstract(flat_names(trained)), _abstract(_leaves(opt_state)))
        found = self.manager.restore(
            step,
            args=ocp.args.Composite(
                trained=ocp.args.StandardRestore(abstract[0]),
                optimizer=ocp.args.StandardRestore(abstract[1]),
                loader=ocp.args.JsonRestore(),
            ),
        )
        state = jax.tree.unflatten(
            jax.tree.structure(opt_state), [found["optimizer"][name] for name in _leaves(opt_state)]
        )
        return step, with_values(trained, found["trained"]), state, found["loader"]

    def close(self) -> None:
        self.manager.close()


def _leaves(tree: Any) -> dict[str, jax.Array]:
    return {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)
