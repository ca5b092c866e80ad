"""Folders for harness texts in the temporary folder, each held by a lock that its owner's death releases.

Whoever makes one first removes those whose owners are dead: what a `kill -9` leaves, the next run removes.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "tapeout-scratch-"


def _locked(path: str) -> int | None:
    """A descriptor that holds the folder; None where another holds it, or it is gone. Closing it lets the folder go."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(held), os.stat(path, follow_symlinks=False)):
            return held
    except OSError:
        pass
    os.close(held)
    return None


def sweep(within: str) -> None:
    """Remove what dead owners left, of this user's."""
    for path in Path(within).glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.geteuid():
                continue
            held = _locked(str(path))
            if held is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(held)


@contextlib.contextmanager
def folder(within: str | None = None) -> Iterator[str]:
    """A fresh folder of this process (in the temporary one, unless `within` another), gone at the end, or with the next
    one made after this process was killed."""
    within = within or tempfile.gettempdir()
    sweep(within)
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=within)
        held = _locked(path)  # None: another's sweep came between
        if held is not None:
            break
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)
