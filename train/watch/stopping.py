"""SIGTERM and Ctrl-C while steps run: noted, so that what was learnt since the last checkpoint is saved first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import jax


@dataclass
class Stop:
    asked: signal.Signals | None = None


@contextmanager
def noted() -> Iterator[Stop]:
    """Within, the first SIGTERM or SIGINT is noted, and does at the end what it did before; a second one does so at
    once, and so does each where several processes train: they could only save together."""
    stop = Stop()
    asking = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ()
    before = {each: handler for each in asking if (handler := signal.getsignal(each)) is not signal.SIG_IGN}

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    def note(signum: int, _frame: FrameType | None) -> None:
        stop.asked = signal.Signals(signum)
        restore()

    for each in before:
        signal.signal(each, note)
    try:
        yield stop
    finally:
        restore()
    if stop.asked is not None:
        signal.raise_signal(stop.asked)
