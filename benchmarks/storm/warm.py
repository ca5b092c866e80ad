"""Commands and stages as forks of one process that has loaded everything: the same code, without the start's seconds.

`Warm` is what `common.process.start` gives: a child that is polled, awaited and signalled.
"""

import contextlib
import ctypes
import importlib
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import process

STAGES = ("data", "train", "convert")
LOADED = ("data.stage", "train.stage", "convert.stage", "convert.proof.probe", "pipeline.cli.app", "models.folder.fit")
_cold = process.start


class Warm:
    """A forked child, in a process group of its own."""

    stdout = None

    def __init__(self, work: Callable[[], object], log: Path | None, env: dict[str, str] | None = None):
        self.returncode: int | None = None
        if not (pid := os.fork()):
            _live(work, log, env)
        self.pid = pid

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout if timeout is not None else 1e9)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(0.005)
        return code

    def communicate(self) -> tuple[bytes, bytes]:
        self.wait()
        return b"", b""

    def send_signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _live(work: Callable[[], object], log: Path | None, env: dict[str, str] | None) -> None:
    """In the child, to its end."""
    code = 1
    try:
        os.setpgid(0, 0)
        if log is not None:
            fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def load() -> None:
    """Import what the stages need, and let them be started as forks of this process."""
    for name in LOADED:
        importlib.import_module(name)
    process.start = _start  # type: ignore[assignment]


def _start(module: str, *arguments: Any, **how: Any) -> Any:
    if module not in STAGES:
        return _cold(module, *arguments, **how)
    parent = os.getpid()

    def work() -> None:
        _die_with(parent)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL if signum == signal.SIGTERM else signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        sys.argv = [module, *map(str, arguments)]
        runpy.run_module(module, run_name="__main__")

    return Warm(work, None, process.environment(how.get("env")))


def _die_with(parent: int) -> None:
    """Killed with whoever started this, as every child of ours is (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def command(arguments: list[str], folder: Path, log: Path, warm: bool) -> Any:
    """`tapeout ARGUMENTS` in `folder`, its output at the end of `log`."""
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    if not warm:
        with open(log, "ab") as sink:
            words = [sys.executable, "-m", "tapeout", *arguments]
            root = str(Path(__file__).parents[2])
            return subprocess.Popen(words, cwd=folder, env=env | {"PYTHONPATH": root}, stdout=sink, stderr=sink)

    def work() -> None:
        os.chdir(folder)
        sys.argv = ["tapeout", *arguments]
        runpy.run_module("tapeout", run_name="__main__")

    return Warm(work, log, env)
