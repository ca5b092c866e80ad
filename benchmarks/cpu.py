"""CPU time of a tree of processes: busy neighbours disturb it less than wall time."""

import os
from collections.abc import Iterator
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[int, float]:
    """(parent, CPU seconds of the process and of the children it has waited for); see proc(5)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[1]), sum(map(int, words[11:15])) / _TICK


def _found() -> Iterator[tuple[int, int, float]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                yield int(entry), *_stat(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue


def cpu_seconds(process: int) -> float:
    """Of a process and everything that descends from it, alive or waited for."""
    table = {pid: (parent, seconds) for pid, parent, seconds in _found()}
    total, wanted = 0.0, {process}
    while wanted:
        total += sum(table[pid][1] for pid in wanted if pid in table)
        wanted = {pid for pid, (parent, _) in table.items() if parent in wanted}
    return total
