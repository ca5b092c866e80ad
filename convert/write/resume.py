"""What a conversion that was cut off had finished, so that the next one goes on at the first missing shard.

One line per finished file: its digest, and what the merge measured while it was written. A line is added after the
file is in its place and on disk; a last line that was cut off does not count.
"""

import hashlib
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from common.files import digest_file, sync_folder
from convert.write.merge import Change

NAME = "progress.jsonl"


@dataclass(frozen=True)
class Done:
    """A finished file: its size, sha256 and the changes of its tensors."""

    size: int
    sha256: str
    changes: dict[str, Change]


class Finished:
    """`identity` stands for everything that decides the bytes; another one's files are not kept."""

    def __init__(self, out: Path, identity: str):
        self.out, self.path = out, out / NAME
        self.identity = hashlib.sha256(identity.encode()).hexdigest()
        self.lock = threading.Lock()
        self.done: dict[str, Done] = {}

    def resume(self, folders: tuple[str, ...], names: list[str]) -> None:
        """Keep what is whole of `names` in `folders`, and remove everything else there."""
        self.done = {name: done for name, done in self._lines().items() if name in names and self._whole(name, done)}
        if not self.done:
            self.close()
        for folder in folders:
            for file in (self.out / folder).rglob("*"):
                if file.is_file() and file.relative_to(self.out).as_posix() not in self.done:
                    file.unlink()
            if not any(name.startswith(f"{folder}/") for name in self.done):
                shutil.rmtree(self.out / folder, ignore_errors=True)

    def _lines(self) -> dict[str, Done]:
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
            if row["identity"] == self.identity:
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
