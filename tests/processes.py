"""What tests of processes ask the kernel: who descends from whom, and who is still alive."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PATIENCE_S = 60.0


def children_of(pid: int) -> Iterator[int]:
    """Children of `pid`, from /proc."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            yield int(stat.parent.name)


def descendants_of(pid: int) -> set[int]:
    found: set[int] = set()
    for child in children_of(pid):
        found |= {child, *descendants_of(child)}
    return found


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def said_by(pid: int) -> str:
    """Its command line, in words."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def left_of(pids: Iterable[int]) -> list[str]:
    """The command lines of those that have not ended after a while."""
    left, deadline = set(pids), time.monotonic() + PATIENCE_S
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if alive(pid)}
        time.sleep(0.01)
    return [said_by(pid) for pid in left]
