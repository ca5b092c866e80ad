"""Files of the artifact, each streamed beside its place with its sha256 computed on the way, synced, then renamed."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from common.files import PARTIAL, sync_folder

CHUNK = 4 << 20
LARGE = 1 << 16
"""Bytes from which a second thread is worth its start."""
WRITE = 256 << 10
"""Bytes of one write: a larger one makes the kernel look for larger folios, which takes it up to ten times longer."""
SYNC_BYTES = 128 << 20
"""Bytes after which a file's pages are sent to the disk, so that the last sync finds little left to do."""


class Sink:
    """A file being written. What is written is hashed meanwhile, and what was written is on its way to the disk."""

    def __init__(self, path: Path):
        self.file = open(path, "wb", buffering=0)  # closed by `Output.new`
        self.sha256 = hashlib.sha256()
        self.hasher, self.syncer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.syncing: Future[None] | None = None
        self.unsynced = 0

    def write(self, content: bytes | memoryview) -> None:
        """`content` may be changed afterwards. Raises OSError naming the file."""
        view = memoryview(content)
        hashed = self.hasher.submit(self.sha256.update, view) if len(view) >= LARGE else None
        try:
            left = view
            while left:
                left = left[self.file.write(left[:WRITE]) :]
        except OSError as error:  # a failing write does not say of which file
            raise OSError(error.errno, error.strerror, self.file.name) from error
        finally:
            if hashed is not None:
                hashed.result()
        if hashed is None:
            self.sha256.update(view)
        self.unsynced += len(view)
        if self.unsynced >= SYNC_BYTES and (self.syncing is None or self.syncing.done()):
            self.unsynced = 0
            self.syncing = self.syncer.submit(os.fdatasync, self.file.fileno())

    def finish(self) -> None:
        """Everything is on disk. Raises what a write in the background met."""
        if self.syncing is not None:
            self.syncing.result()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        for pool in (self.hasher, self.syncer):
            pool.shutdown()
        self.file.close()


class Output:
    """The artifact's folder; `digests` grows with every file that is complete. Threads may write different files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.digests: dict[str, str] = {}

    @contextmanager
    def new(self, name: str) -> Iterator[Sink]:
        final = self.folder / name
        final.parent.mkdir(parents=True, exist_ok=True)
        beside = final.with_name(final.name + PARTIAL)
        sink = Sink(beside)
        try:
            yield sink
            sink.finish()
        except BaseException:
            sink.close()
            beside.unlink(missing_ok=True)
            raise
        sink.close()
        os.replace(beside, final)
        sync_folder(final.parent)
        self.digests[name] = sink.sha256.hexdigest()

    @property
    def size(self) -> int:
        return sum((self.folder / name).stat().st_size for name in self.digests)

    def write(self, name: str, content: bytes | memoryview) -> None:
        with self.new(name) as sink:
            sink.write(content)

    def copy(self, source: Path, name: str) -> None:
        with open(source, "rb") as f, self.new(name) as sink:
            while chunk := f.read(CHUNK):
                sink.write(chunk)
