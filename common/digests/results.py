"""The files of a finished result: digests of them are noted in its record, and checked before anything reads them.

What a stage hashed while it wrote is not read again for it. Checkpoints have digests of their own, checked where they
are read, so that an old one may be deleted. A file that was added counts where readers look for what they know by its
ending: in the result's folders. One beside them is a note.
"""

from collections.abc import Mapping
from pathlib import Path

from common.digests.known import Digests, visible_files
from common.digests.saved import DIGESTS
from common.errors import UserError

LIVE = ("record.json", "job.json", "server.json", "server.log")
"""The conductor's own, and what a server goes on writing."""


def note_files(folder: Path, digests: Digests, hashed: Mapping[str, str]) -> dict[str, str]:
    """Name to sha256 of every file of `folder`; `hashed`: what its stage found while it wrote."""
    names = _names(folder)
    for name in hashed.keys() & names:
        digests.learn(folder / name, hashed[name])
    return dict(zip(names, digests.of_each([folder / name for name in names]), strict=True))


def check_files(folder: Path, noted: Mapping[str, str], digests: Digests, fix: str) -> None:
    """Raises UserError, with `fix`, naming the first file that is missing, was added or holds other bytes."""
    there = _names(folder)
    for name in sorted({*noted} | {name for name in there if "/" in name}):
        if name not in there:
            raise UserError(f"the result is damaged: {name} is missing", where=str(folder), fix=fix)
        if name not in noted:
            raise UserError(f"{name} was added to a finished result", where=str(folder), fix="move it elsewhere")
    names = sorted(noted)
    for name, digest in zip(names, digests.of_each([folder / name for name in names]), strict=True):
        if digest != noted[name]:
            raise UserError(
                f"the result is damaged: {name} has other bytes than were saved", where=str(folder), fix=fix
            )


def result_digest(folder: Path, digests: Digests) -> str:
    """Over what a result holds, and not over when and where it came about."""
    own = (*LIVE, "metrics.json")
    return digests.of_files(
        [path for path in visible_files(folder) if path.parent != folder or path.name not in own], folder
    )


def _names(folder: Path) -> list[str]:
    own = {path.parent for path in folder.rglob(DIGESTS)}
    return [
        path.relative_to(folder).as_posix()
        for path in visible_files(folder)
        if not own.intersection(path.parents) and (path.parent != folder or path.name not in LIVE)
    ]
