"""Disks: how much room there is, asked here by all who are about to fill it; and where what is kept between runs lies.

A disk that fills up half-way takes the machine with it, so room is asked for before the first byte.
"""

import errno
import os
import shutil
from pathlib import Path

from common.errors import UserError

SPARE = 1 << 30
"""Bytes that a download leaves free."""


def free_bytes(folder: Path) -> int:
    """Bytes free where `folder` is or will be."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def check_room(folder: Path, size: int, what: str, fix: str, spare: int = 0) -> None:
    """Raises UserError where `what`, of `size` bytes, does not fit beside `folder` with `spare` bytes left."""
    if size + spare > (free := free_bytes(folder)):
        text = f"{what} takes {_amount(size)}, and {_amount(free)} are free"
        raise UserError(text, where=str(folder), fix=fix)


def larger_disk(key: str) -> str:
    """What to do about too little room, where `key` (of a recipe, or of the environment) moves it elsewhere."""
    return f"free space, or name a folder on a larger disk as {key}"


def need_room(folder: Path, size: int) -> None:
    """Raises OSError (ENOSPC) where `size` bytes do not fit: for those whom a full disk meets in the middle of work."""
    if free_bytes(folder) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:,.0f} MB"


def cache_of(kind: str) -> Path:
    """Where fetched things of a kind (models, rows, benchmarks) are kept: $XDG_CACHE_HOME/tapeout/KIND, else ~/.cache.

    A relative $XDG_CACHE_HOME does not count, as its specification says.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (named if named.is_absolute() else Path("~/.cache")).expanduser() / "tapeout" / kind


def cache_in(runs: Path) -> Path:
    """What a runs folder remembers between runs: digests of files, compiled programs."""
    return runs / ".cache"
