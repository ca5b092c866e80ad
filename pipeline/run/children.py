"""Child processes: started in a group of their own, stopped with the parent's signal, never left behind.

A stage that loads JAX is seconds away from its first line of Python of ours, so the kernel is told before exec that
the child dies with its parent; a killed conductor leaves no process that goes on writing.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from common.errors import EXIT_USER_ERROR

_PR_SET_PDEATHSIG = 1
_GRACE_S = 120.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_started: list[subprocess.Popen[bytes]] = []
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; `signum` says which."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        return 128 + self.signum


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise Interrupted."""

    def on_signal(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, on_signal) for signum in _SIGNALS}
    try:
        yield
    finally:
        for child in _started:
            if child.poll() is None:
                stop(child)
        _started.clear()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def start(module: str, job: Path, env: dict[str, str], stderr: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """`python -m module job`, in its own process group."""
    parent = os.getpid()

    def before_exec() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    # A signal that arrives before the child is known to us would leave it running.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(job)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            process_group=0,
            preexec_fn=before_exec,
        )
        _started.append(child)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return child


def stop(child: subprocess.Popen[bytes]) -> int:
    """Ask the child to end, wait, sweep up its group. A second signal to us ends the patience.

    Always with SIGTERM: on SIGINT a Python that is still importing prints a traceback.
    """
    try:
        if child.poll() is None:
            child.terminate()
            child.wait(_GRACE_S)
    except (Interrupted, subprocess.TimeoutExpired):
        child.kill()
    finally:
        kill_group(child)
    return child.wait()


def kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def wait(child: subprocess.Popen[bytes]) -> int:
    """The child's exit code; an interruption is passed on to it first."""
    try:
        return child.wait()
    except Interrupted:
        stop(child)
        raise
    finally:
        kill_group(child)


class ChildFailed(Exception):
    """A stage's process ended with something else than 0; it has said why on standard error."""

    def __init__(self, step: str, code: int):
        super().__init__(step, code)
        self.step, self.code = step, code

    @property
    def exit_code(self) -> int:
        """A user's error stays one; anything else is a crash."""
        return EXIT_USER_ERROR if self.code == EXIT_USER_ERROR else 1

    def __str__(self) -> str:
        if self.code == EXIT_USER_ERROR:
            return f"{self.step} stopped; what is finished is kept"
        if self.code == -signal.SIGKILL:
            return f"{self.step} was killed from outside (out of memory?); the same command goes on from there"
        ended = f"was ended by signal {-self.code}" if self.code < 0 else f"failed with exit code {self.code}"
        return f"{self.step} {ended}; what is finished is kept, the same command goes on from there"
