"""What a conversion that was cut off had finished, so that the next one goes on at the first missing shard.

One line per finished file: its digest, and what the merge measured while it was written. A line is added after the
file is in its place and on disk; a last line that was cut off does not count. Before the first byte, another file says
which names will be written: what a later conversion finds under others is not ours, and stays.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import PARTIAL, digest_file, read_json, sync_folder, write_json
from convert.write.merge import Change

NAME = "progress.jsonl"
CERTIFICATE = "certificate.json"
CLAIM = "files.json"
"""Names of what a conversion that has begun may have written; certificate.json has those of one that ended."""


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

    def resume(self, folders: tuple[str, ...], shards: list[str], names: Iterable[str]) -> None:
        """Keep what is whole of `shards`, and remove the rest of what conversions wrote in `folders`; from now on it is
        `names` that are written there. Raises UserError for any other file: it is not ours to delete."""
        ours = self._claimed()
        there = [file.relative_to(self.out).as_posix() for each in folders for file in _files(self.out / each)]
        for name in there:
            if name.removesuffix(PARTIAL) not in ours:
                what = "a file that no conversion wrote here is in the way: it would become a part of the result"
                raise UserError(what, where=str(self.out / name), fix="move it, or name another folder")
        self.done = {name: done for name, done in self._lines().items() if name in shards and self._whole(name, done)}
        write_json(self.out / CLAIM, {"files": sorted({*names, *there})})
        for name in {CERTIFICATE, CERTIFICATE + PARTIAL, *there} - set(self.done):
            (self.out / name).unlink(missing_ok=True)
        if not self.done:
            self.path.unlink(missing_ok=True)

    def _claimed(self) -> set[str]:
        names: set[str] = set()
        for each in (CLAIM, CERTIFICATE):
            try:
                names.update(read_json(self.out / each)["files"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return names

    def _lines(self) -> dict[str, Done]:
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        except FileNotFoundError:
            return {}
        found: dict[str, Done] = {}
        for line in lines:
            try:
                row = json.loads(line)
                if row["identity"] == self.identity:
                    changes = {name: Change(**sums) for name, sums in row["changes"].items()}
                    found[row["file"]] = Done(row["size"], row["sha256"], changes)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a disk that filled up, or lost power
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

    def close(self, folders: tuple[str, ...]) -> None:
        """The conversion ended. Where it is complete, or left nothing in `folders`, there is nothing to go on from."""
        complete = (self.out / CERTIFICATE).is_file()
        if complete or not any(_files(self.out / each) for each in folders):
            for path in (self.path, self.out / CLAIM, self.out / (CLAIM + PARTIAL)):
                path.unlink(missing_ok=True)
