"""The launchers (`eval.sandbox.launcher`) that this process keeps, one for each confinement and set of limits."""

import atexit
import functools
import os
import socket
import threading
from typing import Any

from common.process import start
from eval.sandbox import launcher
from eval.sandbox.orphans import Orphans

_MOST_RUNS, _MOST_LAUNCHERS = 500, 4


class _Launcher:
    """A process of `eval.sandbox.launcher` with one confinement and one set of limits; does one run at a time."""

    def __init__(self, cell: dict[str, Any]) -> None:
        self.lock, self.runs = threading.Lock(), 0
        self.channel, theirs = socket.socketpair()
        with theirs:
            channel = theirs.fileno()
            self.process = start(
                "eval.sandbox.launcher",
                channel,
                with_parent=False,  # when the channel closes it ends what it runs: it must not be killed before
                site=False,
                pass_fds=(channel,),
                group="own session",
            )
        refused = self.ask(cell)
        if len(refused) == 2:
            self.close()
            raise OSError(*refused)

    def ask(self, question: dict[str, Any]) -> tuple[Any, ...]:
        """An interrupted conversation cannot be taken up again: the launcher is given up with it."""
        with self.lock:
            self.runs += 1
            try:
                launcher.send(self.channel, question)
                return launcher.receive(self.channel)
            except BaseException:
                self.close()
                raise

    @property
    def usable(self) -> bool:
        """Its own use of the CPU counts against the limit too, so none is kept for ever."""
        return self.channel.fileno() >= 0 and self.runs < _MOST_RUNS

    def close(self) -> None:
        self.channel.close()
        self.process.wait()


class _Launchers:
    """The launchers of this process by what confines them; the longest unused is closed for a new one."""

    def __init__(self) -> None:
        self.known: dict[str, _Launcher] = {}
        self.lock = threading.Lock()

    def of(self, cell: dict[str, Any]) -> _Launcher:
        with self.lock:
            found = self.known.pop(repr(cell), None)
            if found is not None and not found.usable:
                found.close()
                found = None
            while found is None and len(self.known) >= _MOST_LAUNCHERS:
                self.known.pop(next(iter(self.known))).close()
            self.known[repr(cell)] = found = found or _Launcher(cell)
            return found

    def alive(self) -> set[int]:
        return {launcher.process.pid for launcher in self.known.values() if launcher.process.returncode is None}

    def close(self) -> None:
        for process in self.known.values():
            process.close()


@functools.cache
def _of_process(process: int) -> _Launchers:
    """Those of this process; a process forked from it starts its own."""
    found = _Launchers()
    atexit.register(lambda: os.getpid() == process and found.close())
    return found


@functools.cache
def _adopted(process: int) -> list[Orphans]:
    return []


def adopt_orphans() -> None:
    """From now on, what a dead launcher left running is ended. For a process that starts nothing but launchers."""
    _adopted(os.getpid())[:] = [Orphans()]


def ask(cell: dict[str, Any], request: dict[str, Any]) -> tuple[Any, ...]:
    """What `launcher.run` says of a request run in a cell. OSError where it could not be run, or its launcher died."""
    mine = _of_process(os.getpid())
    try:
        answer = mine.of(cell).ask(request)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        for orphans in _adopted(os.getpid()):
            orphans.end(spare=mine.alive())
        raise OSError(0, "the process that starts simulations died") from None
    if len(answer) == 2:
        raise OSError(*answer)
    return answer
