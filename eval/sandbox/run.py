"""Run the compiler and the simulator on code from a model: bounded, and blind to the file system.

Confinement is Landlock (any container, no privileges) or else bubblewrap; without either it fails closed. Not covered:
bugs of the kernel itself, timing channels, and memory shared by several runs at once (the limit holds per process).
Under bubblewrap alone a simulation can see its own /proc; the admission check is then what keeps it from there. A
program that takes over vvp itself could end the launcher (`eval.sandbox.launcher`) that it shares a confinement with:
an error, and in a process that adopted orphans (`launcher_pool.adopt_orphans`, as workers do) what it left running is
ended.
"""

import atexit
import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from eval.sandbox import landlock, scratch
from eval.sandbox import launcher_pool as launchers

Kind = Literal["landlock", "bubblewrap", "none"]
MIB = 1 << 20
_TRIALS = 5
_SYSTEM = ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local/lib")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/dev/null", "/dev/urandom")


@dataclass(frozen=True)
class Limits:
    """Of one process: wall and CPU seconds, address space, largest file, output read before it is stopped (bytes)."""

    seconds: float = 30.0
    memory: int = 2048 * MIB
    file_size: int = 64 * MIB
    output: int = 4 * MIB
    may_fork: bool = True


@dataclass(frozen=True)
class Finished:
    """How a confined process ended; `stopped` names the limit that ended it."""

    code: int
    output: str
    stopped: Literal["", "time", "output"] = ""


@lru_cache
def tool_folders(*tools: str) -> tuple[str, ...]:
    """What must be readable to run the tools: the system's libraries and the folders the tools are installed in."""
    found = list(_SYSTEM)
    for tool in tools:
        prefix = Path(os.path.realpath(shutil.which(tool) or tool)).parent.parent
        found += [str(prefix / name) for name in ("bin", "lib", "lib64", "libexec")]
    return tuple(dict.fromkeys(p for p in found if os.path.isdir(p)))


@lru_cache
def _executable(tool: str, path: str, readable: tuple[str, ...] | None) -> str:
    """Where the tool lies on `path`, in a folder below `readable` (any, if None); itself, to be searched, if nowhere.

    Found once: to have every start try each folder of `path` costs as much as the start.
    """
    for folder in path.split(os.pathsep):
        found = shutil.which(tool, path=folder)
        if found and (readable is None or any(Path(os.path.realpath(found)).is_relative_to(p) for p in readable)):
            return found
    return tool


def _bubblewrap(argv: list[str], readable: tuple[str, ...], folder: str, writable: bool) -> list[str]:
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--dev", "/dev", "--proc", "/proc"]
    for path in (*readable, *_SYSTEM_FILES[:1]):
        command += ["--ro-bind-try", path, path]
    return [*command, "--bind" if writable else "--ro-bind", folder, folder, "--chdir", folder, "--", *argv]


def _resources(limits: Limits) -> list[tuple[int, int]]:
    return [
        (resource.RLIMIT_CPU, int(limits.seconds) + 1),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ]


@functools.cache
def _root(_process: int) -> str:
    kept = contextlib.ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(scratch.folder())


@contextlib.contextmanager
def workplace() -> Iterator[tuple[str, str]]:
    """A fresh folder, and the one above it, which lives as long as this process (name it as `writable`).

    One at a time: on leaving, everything below the folder above is gone.
    """
    above = _root(os.getpid())
    folder = tempfile.mkdtemp(dir=above)
    try:
        yield folder, above
    finally:
        for name in os.listdir(above):
            shutil.rmtree(os.path.join(above, name), ignore_errors=True)


def run(
    argv: list[str], *, folder: str, kind: Kind, limits: Limits, writable: bool | str = False, stdin: bytes = b""
) -> Finished:
    """Run `argv` confined, with `folder` as its working folder, not even readable (Landlock) unless `writable`.

    `writable` may name a folder above `folder` instead: runs that share it start faster. Output is a socket, so that
    the child cannot read back what it wrote. OSError where the program or the confinement could not be started, and
    (without a number) where another killed it, as a machine that is short of memory does.
    """
    readable = tool_folders(argv[0])
    if kind == "bubblewrap":
        argv = _bubblewrap(argv, readable, folder, bool(writable))
    above = folder if writable is True else writable
    cell: dict[str, Any] = {
        "readable": (*readable, *_SYSTEM_FILES) if kind == "landlock" else None,
        "writable": (above,) if above and kind == "landlock" else (),
        "limits": _resources(limits),
    }
    path = os.environ.get("PATH", os.defpath)
    request = {
        "argv": argv,
        "executable": _executable(argv[0], path, cell["readable"]),
        "folder": folder,
        "env": {"PATH": path, "LC_ALL": "C", "TMPDIR": folder},
        "stdin": stdin,
        "seconds": limits.seconds,
        "output": limits.output,
        "may_not_fork": not limits.may_fork,
    }
    code, output, stopped = launchers.ask(cell, request)
    if not stopped and code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        stopped = "time"
    if not stopped and code in (-signal.SIGKILL, 128 + signal.SIGKILL):  # none of our limits ends a program so
        raise OSError(0, "a simulation was killed from outside")
    return Finished(-signal.SIGKILL if stopped else code, output.decode(errors="replace"), stopped)


def _hides(kind: Kind) -> bool:
    """Whether this confinement runs a program and hides a file that the program could otherwise read."""
    with scratch.folder() as outside, scratch.folder() as folder:
        secret = Path(outside) / "secret"
        secret.write_text("seen")
        argv = ["sh", "-c", f"echo alive; cat '{secret}'; echo > '{secret}'"]
        done = run(argv, folder=folder, kind=kind, limits=Limits(seconds=10))
        return "alive" in done.output and "seen" not in done.output and secret.read_text() == "seen"


def _holds(kind: Kind) -> bool:
    """`_hides`, asked again where what ran there was killed (OSError without a number): that says nothing of it."""
    for _ in range(_TRIALS):
        try:
            return _hides(kind)
        except subprocess.SubprocessError:
            return False
        except OSError as error:
            if error.errno:
                return False
    return False


@lru_cache
def find_confinement() -> Kind:
    """The confinement that was seen to work on this machine; raises UserError where there is none."""
    if landlock.abi() and _holds("landlock"):
        return "landlock"
    if shutil.which("bwrap") and _holds("bubblewrap"):
        return "bubblewrap"
    raise UserError(
        "no working sandbox for code from a model: the kernel offers no Landlock, and bubblewrap is missing or barred",
        where="eval.sandbox",
        fix="use Linux 5.13 or later, or install bubblewrap (apt install bubblewrap);\n"
        "         for code you trust, switch it off with --set eval.sandbox=none",
    )
