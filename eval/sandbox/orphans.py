"""Processes whose parent ended before them: adopted, so that whoever ran their program can find and end them.

A program may leave its process group, and what started it may be killed. As Linux's "child subreaper" a process becomes
the parent of all that descends from it and is orphaned; the kernel's list of its children is opened beforehand, for a
confined process cannot. Where the kernel keeps no such list (CONFIG_PROC_CHILDREN), nothing is adopted.
"""

import ctypes
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Collection

_PR_SET_CHILD_SUBREAPER = 36
_MOST = 1 << 16
_PATIENCE_S = 10.0


class Orphans:
    """Of this process, which must have one thread only, and no children but those that it can name."""

    def __init__(self) -> None:
        self._list = _children_file()
        if self._list is not None:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def end(self, spare: Collection[int] = ()) -> None:
        """Kill every child that is not to be spared, and theirs as they are adopted. OSError where that has no end."""
        deadline = time.monotonic() + _PATIENCE_S
        while left := [pid for pid in self._children() if pid not in spare]:
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "a program's processes start others faster than they can be ended")
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            for pid in left:
                os.waitpid(pid, 0)

    def _children(self) -> list[int]:
        return [] if self._list is None else [int(word) for word in os.pread(self._list, _MOST, 0).split()]


def _children_file() -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.open(f"/proc/self/task/{threading.get_native_id()}/children", os.O_RDONLY)
    except OSError:
        return None
