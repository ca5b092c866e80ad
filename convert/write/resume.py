"""What a conversion that was cut off had finished, so that the next one goes on at the first missing shard.

One line per finished file: its digest, and what the merge measured while it was written. A line is added after the
file is in its place and on disk; a last line that was cut off does not count.
"""

import hashlib
import json
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import PARTIAL, digest_file, sync_folder
from convert.write.merge import Change

NAME = "progress.jsonl"


@dataclass(frozen=True)
class Done:
    """A finished file: its size, sha256 and the changes of its tensors."""

    size: int
    sha256: str
    changes: dict[str, Change]


def _files(folder: Path) -> list[Path]:
    """Every file below; a link's own, not what it leads to."""
    if folder.is_symlink():
        raise UserError("a link is in the way of the result", where=str(folder), fix="remove it")
    return [file for file in folder.rglob("*") if file.is_symlink() or not file.is_dir()]


class Finished:
    """`identity` stands for everything that decides the bytes; another one's files are not kept."""

    def __init__(self, out: Path, identity: str):
        self.out, self.path = out, out / NAME
        self.identity = hashlib.sha256(identity.encode()).hexdigest()
        self.lock = threading.Lock()
        self.done: dict[str, Done] = {}

    def resume(self, folders: tuple[str, ...], names: list[str], own: Collection[str]) -> None:
        """Keep what is whole of `names` in `folders`, and remove the rest of what conversions wrote there (`own`, and
        what the log of another one names). Raises UserError for any other file: it is not ours to delete."""
        ours = {*names, *own, *self._lines(any_identity=True)}
        there = [file.relative_to(self.out).as_posix() for each in folders for file in _files(self.out / each)]
        for name in there:
            if name.removesuffix(PARTIAL) not in ours:
                what = "a file that no conversion wrote here is in the way: it would become a part of the result"
                raise UserError(what, where=str(self.out / name), fix="move it, or name another folder")
        self.done = {name: done for name, done in self._lines().items() if name in names and self._whole(name, done)}
        if not self.done:
            self.close()
        for name in set(there) - set(self.done):
            (self.out / name).unlink()

    def _lines(self, any_identity: bool = False) -> dict[str, Done]:
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return {}
        found: dict[str, Done] = {}
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if any_identity or row["identity"] == self.identity:
                changes = {name: Change(**sums) for name, sums in row["changes"].items()}
                found[row["file"]] = Done(row["size"], row["sha256"], changes)
        return found

    def _whole(self, name: str, done: Done) -> bool:
        file = self.out / name
        return file.is_file() and file.stat().st_size == done.size and digest_file(file) == done.sha256

    def add(self, name: str, done: Done) -> None:
        changes = {tensor: change.as_json() for tensor, change in done.changes.items()}
        row = {"identity": self.identity, "file": name, "size": done.size, "sha256": done.sha256, "changes": changes}
        with self.lock, open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")
            f.flush()
            os.fsync(f.fileno())
            sync_folder(self.out)
            self.done[name] = done

    def close(self) -> None:
        """The conversion is complete (or starts anew): nothing to go on from."""
        self.path.unlink(missing_ok=True)
