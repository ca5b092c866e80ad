"""Which processes there are below one, as `ps` tells it."""

import subprocess


def _listed(*columns: str) -> list[list[str]]:
    wanted = ",".join(f"{column}=" for column in columns)
    said = subprocess.run(["ps", "-ww", "-e", "-o", wanted], capture_output=True, text=True, check=True).stdout
    return [line.split(None, len(columns) - 1) for line in said.splitlines()]


def descendants(pid: int) -> dict[int, str]:
    """Each process below `pid`, and its command line."""
    rows = [(int(one), int(parent), " ".join(command)) for one, parent, *command in _listed("pid", "ppid", "args")]
    found, more = dict[int, str](), {pid: ""}
    while more:
        found |= more
        more = {one: command for one, parent, command in rows if parent in more and one not in found}
    del found[pid]
    return found


def alive(pids: set[int]) -> set[int]:
    states = {int(pid): state for pid, state in _listed("pid", "stat")}
    return {pid for pid in pids if states.get(pid, "Z")[0] != "Z"}
