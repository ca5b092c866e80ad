"""Nothing half-written, ever: files and folders are written beside their place, synced, then renamed."""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from common.errors import UserError

PARTIAL = ".partial"


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content` atomically and durably."""
    beside = path.with_name(path.name + PARTIAL)
    with open(beside, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """In UTF-8. Raises UserError where that cannot be: a name that the system gave has other bytes."""
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        what = f"a name or text that is not UTF-8: {text[: error.end].rpartition(chr(10))[2]}"
        raise UserError(what, where=str(path), fix="rename it") from None
    write_bytes(path, content)


def write_json(path: Path, value: Any) -> None:
    """Raises UserError naming a figure that is NaN or infinite: JSON has no such number, and readers differ on it."""
    for key, figure in _figures(value):
        if not math.isfinite(figure):
            fix = "look above for what made it so"
            raise UserError(f"{key} is {figure}, which no result can be", where=str(path), fix=fix)
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))  # half a surrogate pair, as JSON spells it


def _figures(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every float of a JSON value with its dotted key."""
    if isinstance(value, float):
        yield key, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, each in inner:
        yield from _figures(each, f"{key}.{name}" if key else str(name))


def read_json(path: Path) -> Any:
    """Raises ValueError for what is no JSON, and for what is nested too deeply to be anything of ours."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_HASHED = 16 << 20
"""Bytes hashed at once: few enough turns that a thread which hashes does not queue for the interpreter's lock."""


def digest_file(path: Path) -> str:
    """sha256 of a file's content."""
    total = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        buffer = memoryview(bytearray(min(max(1, os.fstat(f.fileno()).st_size), _HASHED)))
        while count := f.readinto(buffer):
            total.update(buffer[:count])
    return total.hexdigest()


def real(path: str | Path) -> Path:
    """Absolute, links followed as far as they lead: those in a circle stay, where Path.resolve raises."""
    return Path(os.path.realpath(path))


def keep_apart(out: Path, inputs: Mapping[str, str | None]) -> None:
    """Raises UserError where `out` lies in an input, an input in `out`, or both are one: results are cleared before
    they are written anew, and whatever lies in an input is read as a part of it."""
    place = real(out)
    for name, path in inputs.items():
        if path is None or "://" in path:
            continue
        other = real(path)
        if place == other or other in place.parents or place in other.parents:
            what = f"the output and an input ({name}) lie in one another: {path}"
            raise UserError(what, where=str(out), fix="name a folder for the output beside its inputs")


def partial_of(final: Path) -> Path:
    return final.with_name(final.name + PARTIAL)


def commit_folder(partial: Path, final: Path) -> None:
    """Sync every file of `partial` to disk, then rename it to `final`, which is absent or empty."""
    for file in partial.rglob("*"):
        if file.is_file():
            fd = os.open(file, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        elif file.is_dir():
            sync_folder(file)
    sync_folder(partial)
    os.replace(partial, final)
    sync_folder(final.parent)


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield `final`.partial, empty; on success it becomes `final`, on any failure it is removed. Raises UserError where
    `final` holds something."""
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise UserError("the output folder exists and is not empty", where=str(final), fix="name a new folder")
    partial = partial_of(final)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        commit_folder(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock, a file at `path` that is gone afterwards. Who finds it held waits `patience_s`, and is
    then told: UserError."""
    deadline = time.monotonic() + patience_s
    while (held := _lock(path)) is None:
        if time.monotonic() > deadline:
            what = "another tapeout process is working on this"
            raise UserError(what, where=str(path), fix="wait for it, or stop it first")
        time.sleep(0.05)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        held.close()


def _lock(path: Path) -> IO[str] | None:
    """The locked file at `path`; None where another holds it, or has just let it go and removed it."""
    file = open(path, "a")
    with contextlib.ExitStack() as closing:
        closing.callback(file.close)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                closing.pop_all()
                return file
    return None
