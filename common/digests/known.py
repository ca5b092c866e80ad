"""sha256 of files, each computed once: a digest holds while its file has the size, inode and both times it had then.

The time of change (ctime), which no program can set, is what makes that safe: bytes that change under an old time of
modification are seen. A file written just now is read only once its clock has ticked on, since a second write within
one tick would leave the same times. What one process computed it hands to the next (`Known`), which asks the file
itself whether that still holds.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common.digests.saved import SEAL, has_seal, sealed
from common.errors import UserError
from common.files import digest_file, read_json, real, write_json
from common.machine import cores
from common.schema import Known, Stamped

_TICK_NS, _COARSE_TICK_NS = 50_000_000, 2_000_000_000
"""No file system's clock is coarser; the second is of those that know whole seconds only."""


class Digests:
    """`memory` is where digests are kept between runs (None: not kept), `known` what another process computed."""

    def __init__(self, memory: Path | None = None, known: Mapping[str, Stamped] | None = None):
        self.memory, self.changed = memory, False
        self.known: Known = dict(known or {})
        if memory and memory.is_file():
            try:
                kept = read_json(memory)
                if has_seal(kept):
                    self.known |= {path: (*each[:4], each[4]) for path, each in kept.items() if path != SEAL}
            except (ValueError, TypeError, AttributeError, IndexError):
                pass

    def of(self, path: str | Path) -> str:
        """A file's digest, or a folder's: over the names and contents of all its visible files."""
        path = Path(path)
        return self.of_file(path) if path.is_file() else self.of_files(visible_files(path), path)

    def of_file(self, path: Path) -> str:
        """Raises UserError for a file that changes while it is read."""
        key, stamp = str(path.resolve()), _stamp(path)
        if (known := self.known.get(key)) and tuple(known[:4]) == stamp:
            return known[4]
        settled = _settle(stamp[3])
        stamp, digest = _stamp(path), digest_file(path)
        if _stamp(path) != stamp:
            what = "the file changed while it was read"
            raise UserError(what, where=str(path), fix="leave it alone, and run the same command again")
        if settled:
            self.known[key] = (*stamp, digest)
            self.changed = True
        return digest

    def of_files(self, paths: Iterable[Path], folder: Path) -> str:
        """Over names (relative to `folder`) and contents, in the order given; all cores read."""
        paths, total = list(paths), hashlib.sha256()
        for path, digest in zip(paths, self.of_each(paths), strict=True):
            total.update(f"{path.relative_to(folder).as_posix()}\0{digest}\0".encode())
        return total.hexdigest()

    def of_each(self, paths: Sequence[Path]) -> list[str]:
        """Of every file, in the order given; all cores read."""
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(self.of_file, paths))

    def learn(self, path: Path, digest: str) -> None:
        """Take it that `path`, which was just written, has this digest."""
        stamp = _stamp(path)
        if _settle(stamp[3]) and _stamp(path) == stamp:
            self.known[str(path.resolve())] = (*stamp, digest)
            self.changed = True

    def moved(self, old: Path, new: Path) -> None:
        """What was in the folder `old` is in `new` now."""
        for key in [key for key in self.known if Path(key).is_relative_to(real(old))]:
            self.known[str(real(new) / Path(key).relative_to(real(old)))] = self.known.pop(key)

    def known_of(self, paths: Iterable[Path]) -> Known:
        """What is known of these files, for another process."""
        keys = [str(path.resolve()) for path in paths]
        return {key: self.known[key] for key in keys if key in self.known}

    def save(self) -> None:
        if self.memory and self.changed:
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            own = self.memory.with_name(f"{self.memory.name}.{os.getpid()}")  # recipes that run at once share a memory
            write_json(own, sealed(self.known))
            own.replace(self.memory)
            self.changed = False


def visible_files(folder: Path) -> list[Path]:
    """Every file below a folder but hidden ones and Python's caches, in the order of their names."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts):
            found.append(path)
    return found


def _stamp(path: Path) -> tuple[int, int, int, int]:
    about = path.stat()
    return about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns


def _settle(changed_ns: int) -> bool:
    """Wait until the file's clock has ticked on since its last change; False where that is in the future."""
    tick = _TICK_NS if changed_ns % 1_000_000_000 else _COARSE_TICK_NS
    left = changed_ns + tick - time.time_ns()
    if left > tick:
        return False
    time.sleep(max(0, left) / 1e9)
    return True
