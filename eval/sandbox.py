"""Run the compiler and the simulator on code from a model: bounded, and blind to the file system.

Confinement is Landlock (any container, no privileges) or else bubblewrap; without either it fails closed. Not covered:
bugs of the kernel itself, timing channels, and memory shared by several runs at once (the limit holds per process).
Under bubblewrap alone a simulation can see its own /proc; the admission check is then what keeps it from there.
"""

import ctypes
import os
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from common.errors import UserError
from eval import landlock

Kind = Literal["landlock", "bubblewrap", "none"]
MIB = 1 << 20
_PR_SET_PDEATHSIG = 1
_SYSTEM = ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local/lib")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/dev/null", "/dev/urandom")
_libc = ctypes.CDLL(None, use_errno=True)


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


def die_with_parent() -> None:
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@lru_cache
def tool_folders(*tools: str) -> tuple[str, ...]:
    """What must be readable to run the tools: the system's libraries and the folders the tools are installed in."""
    found = list(_SYSTEM)
    for tool in tools:
        prefix = Path(os.path.realpath(shutil.which(tool) or tool)).parent.parent
        found += [str(prefix / name) for name in ("bin", "lib", "lib64", "libexec")]
    return tuple(dict.fromkeys(p for p in found if os.path.isdir(p)))


def _bubblewrap(argv: list[str], readable: tuple[str, ...], folder: str, writable: bool) -> list[str]:
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--dev", "/dev", "--proc", "/proc"]
    for path in (*readable, *_SYSTEM_FILES[:1]):
        command += ["--ro-bind-try", path, path]
    return [*command, "--bind" if writable else "--ro-bind", folder, folder, "--chdir", folder, "--", *argv]


def _child_setup(limits: Limits, rules: int | None) -> Callable[[], None]:
    seconds = int(limits.seconds) + 1
    pairs = [
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ]
    if not limits.may_fork:
        pairs.append((resource.RLIMIT_NPROC, 0))

    def setup() -> None:
        die_with_parent()
        for which, value in pairs:
            hard = resource.getrlimit(which)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            try:
                resource.setrlimit(which, (value, value))
            except ValueError:
                if sys.platform == "linux":
                    raise
        if rules is not None:
            landlock.confine(rules)

    return setup


def _converse(process: subprocess.Popen[bytes], ours: socket.socket, stdin: bytes, limits: Limits) -> Finished:
    """Feed standard input and collect output until the process closes it, or a limit is met."""
    deadline = time.monotonic() + limits.seconds
    output, sent = bytearray(), 0
    with selectors.DefaultSelector() as ready:
        ready.register(ours, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            ready.register(process.stdin, selectors.EVENT_WRITE)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return Finished(-signal.SIGKILL, output.decode(errors="replace"), "time")
            for key, _ in ready.select(left):
                if key.fileobj is ours:
                    chunk = ours.recv(1 << 16)
                    output += chunk
                    if len(output) > limits.output:
                        return Finished(-signal.SIGKILL, output[: limits.output].decode(errors="replace"), "output")
                    if not chunk:
                        return _reap(process, output, deadline)
                elif process.stdin is not None:
                    try:
                        sent += os.write(process.stdin.fileno(), stdin[sent : sent + (1 << 16)])
                    except BrokenPipeError:
                        sent = len(stdin)
                    if sent == len(stdin):
                        ready.unregister(process.stdin)
                        process.stdin.close()


def _reap(process: subprocess.Popen[bytes], output: bytearray, deadline: float) -> Finished:
    text = output.decode(errors="replace")
    try:
        code = process.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        return Finished(-signal.SIGKILL, text, "time")
    return Finished(code, text, "time" if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU) else "")


def run(
    argv: list[str], *, folder: str, kind: Kind, limits: Limits, writable: bool = False, stdin: bytes = b""
) -> Finished:
    """Run `argv` confined, with `folder` as its working folder, `writable` or (Landlock) not even readable.

    Call it from a process without other threads. Output is a socket, so that the child cannot read back what it wrote.
    """
    readable = tool_folders(argv[0])
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": folder}
    rules = None
    if kind == "landlock":
        rules = landlock.ruleset((*readable, *_SYSTEM_FILES), (folder,) if writable else ())
    elif kind == "bubblewrap":
        argv = _bubblewrap(argv, readable, folder, writable)
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=theirs.fileno(),
            stderr=theirs.fileno(),
            start_new_session=True,
            preexec_fn=_child_setup(limits, rules),
        )
        theirs.close()
        try:
            return _converse(process, ours, stdin, limits)
        finally:
            _kill_group(process)
    finally:
        ours.close()
        theirs.close()
        if rules is not None:
            os.close(rules)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it left in its group (a group that still has members keeps its id to itself)."""
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.poll()
    process.wait()


def _holds(kind: Kind) -> bool:
    """Whether this confinement runs a program and hides a file that the program could otherwise read."""
    with tempfile.TemporaryDirectory() as outside, tempfile.TemporaryDirectory() as folder:
        secret = Path(outside) / "secret"
        secret.write_text("seen")
        argv = ["sh", "-c", f"echo alive; cat '{secret}'; echo > '{secret}'"]
        try:
            done = run(argv, folder=folder, kind=kind, limits=Limits(seconds=10))
        except (OSError, subprocess.SubprocessError):
            return False
        return "alive" in done.output and "seen" not in done.output and secret.read_text() == "seen"


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
