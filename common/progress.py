"""Progress in every long step: a rich bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.terminal import visible

PLAIN_EVERY_S = 10.0


class Bar(Protocol):
    def advance(self, n: int = 1, note: str = "") -> None: ...


class _Plain:
    def __init__(self, what: str, total: int, unit: str):
        self.what, self.total, self.unit = what, total, unit
        self.done, self.start, self.last, self.note = 0, time.monotonic(), time.monotonic(), ""

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        now = time.monotonic()
        if now - self.last >= PLAIN_EVERY_S or self.done == self.total:
            self.last = now
            self.line(now - self.start)

    def line(self, seconds: float) -> None:
        rate = self.done / max(seconds, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        tail = f", {self.note}" if self.note else ""
        log(f"{self.what}: {self.done}/{self.total} {self.unit}, {rate:.1f} {self.unit}/s, {left:.0f} s left{tail}")


class _Rich:
    def __init__(self, progress: Progress, what: str, total: int, unit: str):
        self.progress, self.unit, self.start, self.done, self.note = progress, unit, time.monotonic(), 0, ""
        self.task = progress.add_task(what, total=total, rate="", note="")

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        self.progress.update(self.task, advance=n, rate=f"{rate:.1f} {self.unit}/s", note=self.note)


def log(message: str) -> None:
    """One line of plain text to standard error; escape sequences in it are spelled out."""
    print(visible(message), file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, total: int, unit: str = "items") -> Iterator[Bar]:
    """Report progress of `total` `unit`s; the bar shows rate and remaining time, `note` the latest figure."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Plain(what, total, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Rich(progress, what, total, unit)
