"""The conductor's children: a group each, stopped with its signal, dead when it is killed, never left behind.

A stage, a server, or a question of another room (`ask`) that is answered with JSON.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from common import process
from common.errors import EXIT_USER_ERROR
from common.files import write_json

_GRACE_S = 120.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_started: list[subprocess.Popen[bytes]] = []


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


def start(
    module: str, job: Path, env: dict[str, str], stdout: process.Pipe = None, stderr: process.Pipe = None
) -> subprocess.Popen[bytes]:
    """`python -m module job`, in its own process group."""
    # A signal that arrives before the child is known to us would leave it running.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        child = process.start(module, job, with_parent=True, env=env, stdout=stdout, stderr=stderr, group="own")
        _started.append(child)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return child


def newest() -> subprocess.Popen[bytes] | None:
    """The child that was started last."""
    return _started[-1] if _started else None


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
    return _finish(child)[0]


def _finish(child: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """The child's exit code, and what it wrote on a standard output that is ours to read."""
    try:
        said, _ = child.communicate()
        return child.returncode, said or b""
    except Interrupted:
        stop(child)
        raise
    finally:
        kill_group(child)
        if child.stdout is not None:
            child.stdout.close()


@dataclass(frozen=True)
class Answer:
    """How a child that was asked something ended, and what it said; None where it said nothing."""

    code: int
    said: Any


def ask(module: str, job: dict[str, Any], env: dict[str, str]) -> Answer:
    """What `python -m module` answers to a job (see `common.answer`); its standard error is the user's.

    Raises ChildFailed where a signal ended it.
    """
    code, output = _told(module, job, env, subprocess.PIPE)
    try:
        return Answer(code, json.loads(output.splitlines()[-1]))
    except (ValueError, IndexError):
        return Answer(code, None)


def tell(module: str, job: dict[str, Any], env: dict[str, str]) -> int:
    """The exit code of `python -m module` on a job; its standard output is the user's, too. Raises as `ask` does."""
    return _told(module, job, env, None)[0]


def _told(module: str, job: dict[str, Any], env: dict[str, str], stdout: process.Pipe) -> tuple[int, bytes]:
    with tempfile.TemporaryDirectory(prefix="tapeout-") as folder:
        path = Path(folder) / "job.json"
        write_json(path, job)
        code, output = _finish(start(module, path, env, stdout))
    if code < 0:
        raise ChildFailed(module, code)
    return code, output


class ChildFailed(Exception):
    """A stage's process ended with something else than 0; it has said why on standard error."""

    def __init__(self, step: str, code: int, keeps: bool = True):
        """`keeps`: whether it is a step of work that goes on from what it has finished."""
        super().__init__(step, code, keeps)
        self.step, self.code, self.keeps = step, code, keeps

    @property
    def exit_code(self) -> int:
        """A user's error stays one; anything else is a crash."""
        return EXIT_USER_ERROR if self.code == EXIT_USER_ERROR else 1

    def __str__(self) -> str:
        if self.code == EXIT_USER_ERROR:
            return f"{self.step} stopped" + ("; what is finished is kept" if self.keeps else "")
        if self.code == -signal.SIGKILL:
            return f"{self.step} was killed from outside (out of memory?); the same command goes on from there"
        ended = f"was ended by signal {-self.code}" if self.code < 0 else f"failed with exit code {self.code}"
        return f"{self.step} {ended}; what is finished is kept, the same command goes on from there"
