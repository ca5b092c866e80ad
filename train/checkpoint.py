"""Checkpoints of a training run: Orbax writes them beside and renames; the latest few are kept.

Each holds `trained` (flat: name -> array, what convert reads), `optimizer`, `loader` (the data iterator's state) and
`settings`: a run that was cut off continues bit for bit, or is told that it would not. One counts as saved when the
digests of its files are on disk, too.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx

from common.digests.saved import check_digests, has_digests, write_digests
from common.disk import need_room
from common.errors import UserError
from common.files import write_text
from common.progress import log
from train.names import flat_names, with_values


class Checkpoints:
    def __init__(self, folder: Path, keep: int, settings: dict[str, Any]):
        """`settings`: JSON, what a run that goes on from here must have, too."""
        # None are removed by Orbax: it would do so before the new one counts as saved.
        options = ocp.CheckpointManagerOptions(max_to_keep=None, create=True, enable_async_checkpointing=False)
        self.folder, self.keep, self.settings = folder.absolute(), keep, settings
        self.saving = self.folder.with_name("checkpoint.saving")
        """Holds the step of a checkpoint that does not count yet."""
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, trained: nnx.State, opt_state: Any, loader: dict[str, Any]) -> None:
        """Write one checkpoint, then remove what is too old. Raises OSError (ENOSPC) where the disk has no room, before
        anything is written."""
        arrays = flat_names(trained), _leaves(opt_state)
        # Asked first: on a full disk Orbax's threads print tracebacks, and its error is a ValueError.
        need_room(self.folder, sum(a.nbytes for a in jax.tree.leaves(arrays)))
        if jax.process_index() == 0:
            write_text(self.saving, str(step))
        self.manager.save(
            step,
            args=ocp.args.Composite(
                trained=ocp.args.StandardSave(arrays[0]),
                optimizer=ocp.args.StandardSave(arrays[1]),
                loader=ocp.args.JsonSave(loader),
                settings=ocp.args.JsonSave(self.settings),
            ),
        )
        self.manager.wait_until_finished()
        if jax.process_index() == 0:
            write_digests(self.folder / str(step))
            self.saving.unlink()
        for old in sorted(self.manager.all_steps())[: -self.keep]:
            self.manager.delete(old)

    def restore(self, trained: nnx.State, opt_state: Any) -> tuple[int, nnx.State, Any, dict[str, Any]] | None:
        """(step, trained, optimizer state, loader state) of the latest checkpoint, placed as the arguments are.

        Raises UserError where it is damaged, or naming the setting with which it was not begun; one that was cut off
        while it was saved is removed.
        """
        step = self._latest()
        if step is None:
            return None
        self._check_settings(step)
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

    def _latest(self) -> int | None:
        steps = sorted(self.manager.all_steps())
        if self.saving.is_file():
            step = next((step for step in steps if str(step).encode() == self.saving.read_bytes()), None)
            if step is not None and not has_digests(self.folder / str(step)):
                log(f"train: the checkpoint of step {step} was cut off while it was saved: removed")
                self.manager.delete(step)
                steps.remove(step)
            self.saving.unlink()
        if not steps:
            return None
        fix = f"delete it: training goes on from step {steps[-2]}" if len(steps) > 1 else "delete it, to begin again"
        try:
            check_digests(self.folder / str(steps[-1]), fix)
        except UserError as error:
            place = str(self.folder / str(steps[-1]))  # to be deleted whole, and not its list of digests alone
            raise UserError(f"a damaged checkpoint: {error.what}", where=place, fix=error.fix) from None
        return steps[-1]

    def _check_settings(self, step: int) -> None:
        if not (self.folder / str(step) / "settings").is_dir():  # of an earlier version
            return
        args = ocp.args.Composite(settings=ocp.args.JsonRestore())
        begun = self.manager.restore(step, args=args)["settings"]
        for key in sorted(begun.keys() | self.settings.keys()):
            if (was := begun.get(key)) != (now := self.settings.get(key)):
                fix = "train with what it was begun with, or into another folder"
                raise UserError(f"begun with {key} {was}, now it is {now}", where=str(self.folder), fix=fix)

    def close(self) -> None:
        self.manager.close()


def _leaves(tree: Any) -> dict[str, jax.Array]:
    return {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)
