"""The one place where processes of ours are started: stages, servers, fetchers, judges, simulators.

`tapeout.py` is what they run first: it puts this package's root before everything but the standard library. Python's
safe path (-P) keeps the working folder off the path. Of PYTHONPATH, which may name a plug-in for an accelerator, the
absolute folders stay; what is empty, relative, or the working folder itself means that folder and is left out.
"""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Literal, NoReturn

from common.safe_path import CHILD, FIRST, elsewhere

Argument = str | int | Path
Pipe = IO[bytes] | int | None
Group = Literal["parent", "own", "own session"]


def command(module: str, *arguments: Argument, with_parent: bool, site: bool = True) -> list[str]:
    """What runs `module` as `python -m` does, for whoever starts it in another way than `start`.

    `with_parent`: killed when the thread that starts it ends, be it by `kill -9` (where the kernel is Linux). Not for
    a child that has something to end itself, nor for one that a passing thread starts.
    `site=False`: the standard library and ours alone, whatever the environment says.
    """
    flags = ["-P"] if site else ["-I", "-S"]
    return [sys.executable, *flags, FIRST, CHILD, str(os.getpid() if with_parent else 0), module, *map(str, arguments)]


def environment(base: Mapping[str, str] | None = None, **changes: str) -> dict[str, str]:
    """For a child: `base` (else this process's own) with `changes`, less what leads to the working folder."""
    env = {**(os.environ if base is None else base), **changes}
    entries = elsewhere(env.pop("PYTHONPATH", "").split(os.pathsep))
    return env | ({"PYTHONPATH": os.pathsep.join(entries)} if entries else {})


def start(
    module: str,
    *arguments: Argument,
    with_parent: bool,
    site: bool = True,
    env: Mapping[str, str] | None = None,
    stdin: Pipe = subprocess.DEVNULL,
    stdout: Pipe = None,
    stderr: Pipe = None,
    pass_fds: Collection[int] = (),
    group: Group = "parent",
    cwd: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start `module` as `command` has it; `group` is whose process group it is in. OSError where none can start."""
    return subprocess.Popen(
        command(module, *arguments, with_parent=with_parent, site=site),
        env=environment(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        cwd=cwd,
        process_group=0 if group == "own" else None,
        start_new_session=group == "own session",
    )


def become(module: str, *arguments: Argument) -> NoReturn:
    """Go on as `module`, in place of this process."""
    os.execve(sys.executable, command(module, *arguments, with_parent=False), environment())
