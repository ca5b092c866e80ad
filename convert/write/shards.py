"""The merged weights, written: several shards at a time, each in order, their pieces computed by all cores.

A shard's thread asks for pieces a few ahead, hashes and writes them in order; the cores read, merge and cast. The
pieces in flight are bounded, so memory depends on the number of shards at work and not on their size.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np

from common.errors import UserError
from common.machine import cores
from common.progress import Bar
from convert.adapters.adapter import Adapter
from convert.write.files import Output, Sink
from convert.write.headers import FLOATS
from convert.write.merge import Change, Update, change_rows, checked, pair_update, value_update
from convert.write.plan import File, Part, Plan
from convert.write.resume import Done, Finished

PIECE = 8 << 20
"""Bytes of a tensor that are read, changed and written at once."""
AHEAD = 4
"""Pieces of a shard in flight."""
BUDGET = 512 << 20
"""Bytes of pieces in flight, over all shards."""

Piece = tuple[np.ndarray, Change | None]


class Buffers:
    """Memory of pieces, used again: fresh pages would cost more time than the merge itself."""

    def __init__(self) -> None:
        self.free: SimpleQueue[np.ndarray] = SimpleQueue()

    def take(self, size: int) -> np.ndarray:
        if size > PIECE:
            return np.empty(size, np.uint8)
        try:
            return self.free.get_nowait()[:size]
        except Empty:
            return np.empty(PIECE, np.uint8)[:size]

    def give(self, piece: np.ndarray) -> None:
        whole = piece.base
        if isinstance(whole, np.ndarray) and whole.nbytes == PIECE:
            self.free.put(whole)


@dataclass(frozen=True)
class Crew:
    """How many shards are written at a time, and by how many cores their pieces are computed."""

    writers: int
    cores: int

    @property
    def memory(self) -> int:
        """Bytes of pieces in flight, and of the merge's buffers (three of float32, one of up to 8 bytes)."""
        return self.writers * (AHEAD + 1) * PIECE + self.cores * 20 * (1 << 18)


def crew(files: int) -> Crew:
    count = cores()
    return Crew(max(1, min(files, count, BUDGET // ((AHEAD + 1) * PIECE))), count)


def write_files(output: Output, folder: str, plan: Plan, adapter: Adapter, finished: Finished, progress: Bar) -> None:
    """Write what is not `finished`. The first failure stops all shards; their partial files are removed."""
    files = [file for file in plan.files if f"{folder}/{file.name}" not in finished.done]
    team, stop = crew(len(files)), threading.Event()
    with ThreadPoolExecutor(team.cores) as pool, ThreadPoolExecutor(team.writers) as writers:
        jobs = [writers.submit(_write_file, output, folder, each, adapter, finished, pool, stop) for each in files]
        try:
            for file, job in zip(files, jobs, strict=True):
                job.result()
                progress.advance(len(file.parts))
        except BaseException as error:
            stop.set()
            raise _first_cause(jobs, error) from None


def _first_cause(jobs: list[Future[None]], error: BaseException) -> BaseException:
    """A shard that was stopped because another one failed is not the reason."""
    if not isinstance(error, _Stopped):
        return error
    failures = (job.exception() for job in jobs)
    return next((each for each in failures if each is not None and not isinstance(each, _Stopped)), error)


class _Stopped(Exception):
    """Another shard failed, or the process was asked to end."""


def _write_file(
    output: Output,
    folder: str,
    file: File,
    adapter: Adapter,
    finished: Finished,
    pool: ThreadPoolExecutor,
    stop: threading.Event,
) -> None:
    name = f"{folder}/{file.name}"
    changes: dict[str, Change] = {}
    waiting: deque[tuple[str, Future[Piece]]] = deque()
    buffers = Buffers()
    with _Sources() as sources, output.new(name) as sink:
        try:
            sink.write(file.head)
            for tensor, work in _pieces(file, adapter, sources, buffers):
                if stop.is_set():
                    raise _Stopped
                waiting.append((tensor, pool.submit(*work)))
                if len(waiting) > AHEAD:
                    buffers.give(_take(waiting, sink, changes))
            while waiting:
                _take(waiting, sink, changes)
        except BaseException:
            stop.set()
            for _, job in waiting:
                job.cancel()
            for _, job in waiting:
                if not job.cancelled():
                    job.exception()  # it reads from a file that is about to be closed
            raise
    finished.add(name, Done(file.bytes, output.digests[name], changes))


def _take(waiting: deque[tuple[str, Future[Piece]]], sink: Sink, changes: dict[str, Change]) -> np.ndarray:
    """Write the oldest piece."""
    tensor, job = waiting.popleft()
    piece, change = job.result()
    sink.write(piece.data)
    if change is not None:
        changes.setdefault(tensor, Change()).include(change)
    return piece


class _Sources:
    """The base's files, each opened once."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}

    def __enter__(self) -> "_Sources":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.open.values():
            os.close(fd)

    def of(self, part: Part) -> int:
        assert part.source is not None, part
        path = str(part.source[0].path)
        if path not in self.open:
            self.open[path] = os.open(path, os.O_RDONLY)
        return self.open[path]


def _pieces(file: File, adapter: Adapter, sources: _Sources, buffers: Buffers) -> Iterator[tuple[str, tuple]]:
    """(tensor, function and arguments that make its next piece), in the order of the file's bytes."""
    for part in file.parts:
        if part.source is None:
            yield part.name, (_new, part, adapter)
            continue
        update = None
        if part.name in adapter.pairs:
            update = pair_update(adapter.pairs[part.name])
        elif part.name in adapter.values:
            update = value_update(adapter.values[part.name])
        fd, begin = sources.of(part), part.source[1].begin
        if update is None:
            for at in range(0, part.bytes, PIECE):
                yield part.name, (_read, part, buffers, fd, begin + at, min(PIECE, part.bytes - at))
            continue
        row = part.bytes // max(1, part.rows)
        step = max(1, PIECE // max(1, row))
        for first in range(0, part.rows, step):
            last = min(first + step, part.rows)
            yield part.name, (_merged, part, buffers, fd, begin + first * row, (last - first) * row, first, update)


def _read(part: Part, buffers: Buffers, fd: int, begin: int, size: int) -> Piece:
    piece = buffers.take(size)
    done = 0
    while done < size:
        count = os.preadv(fd, [piece[done:].data], begin + done)
        if count == 0:
            what = "a file of the base shrank while it was read"
            raise UserError(what, where=part.name, fix="leave the base alone and run again")
        done += count
    return piece, None


def _merged(part: Part, buffers: Buffers, fd: int, begin: int, size: int, first: int, update: Update) -> Piece:
    piece, _ = _read(part, buffers, fd, begin, size)
    return piece, change_rows(part, first, piece, update)


def _new(part: Part, adapter: Adapter) -> Piece:
    """A trained tensor's bytes where the base holds none."""
    array = checked(adapter.values[part.name]).astype(FLOATS[part.dtype])
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8), None
