"""Packed rows on disk: what stage 1 writes and stage 2 reads.

One ArrayRecord record is one packed row: token ids, loss mask, segment lengths. Batches come from Grain by index, so
their order depends on the seed and the step alone: every process shuffles the same indices and reads its own share.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags
from array_record.python.array_record_module import ArrayRecordWriter

from common.errors import UserError

SUFFIX = ".array_record"
_HEADER = struct.Struct("<4sBII")
_MAGIC = b"tpr1"
_ENDLESS = 1 << 48
"""Rows of a run without end; Grain's own endless length overflows in batches of one."""
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class PackedRow:
    """`ids` int32 [t], `mask` bool [t] (token t is supervised as a target), `lengths` of its segments, summing to t."""

    ids: np.ndarray
    mask: np.ndarray
    lengths: np.ndarray

    def to_bytes(self) -> bytes:
        wide = int(self.ids.max(initial=0)) > np.iinfo(np.uint16).max
        return b"".join(
            (
                _HEADER.pack(_MAGIC, 4 if wide else 2, len(self.ids), len(self.lengths)),
                np.asarray(self.lengths, "<u4").tobytes(),
                self.ids.astype("<u4" if wide else "<u2").tobytes(),
                np.packbits(self.mask).tobytes(),
            )
        )

    @staticmethod
    def _head(record: bytes) -> tuple[int, int, int]:
        """Bytes of an id, tokens, segments."""
        if len(record) < _HEADER.size or record[:4] != _MAGIC:
            raise UserError("a record that tapeout did not write", fix="run the data stage again")
        return _HEADER.unpack_from(record)[1:]

    @classmethod
    def length_of(cls, record: bytes) -> int:
        """Tokens of a row, without reading them."""
        return cls._head(record)[1]

    @classmethod
    def from_bytes(cls, record: bytes) -> "PackedRow":
        width, tokens, segments = cls._head(record)
        ids_at = _HEADER.size + 4 * segments
        mask_at = ids_at + width * tokens
        lengths = np.frombuffer(record, "<u4", segments, _HEADER.size)
        ids = np.frombuffer(record, f"<u{width}", tokens, ids_at)
        mask = np.unpackbits(np.frombuffer(record, np.uint8, offset=mask_at), count=tokens)
        return cls(ids.astype(np.int32), mask.astype(bool), lengths.astype(np.int32))


def write_shards(rows: Iterable[PackedRow], folder: Path, shard_rows: int = 4096) -> int:
    """Write rows to new files of at most `shard_rows` each; returns how many rows. The folder must be empty."""
    folder.mkdir(parents=True, exist_ok=True)
    writer, count = None, 0
    try:
        for row in rows:
            if count % shard_rows == 0:
                if writer is not None:
                    _close(writer, folder)
                path = folder / f"{count // shard_rows:05d}{SUFFIX}"
                writer = ArrayRecordWriter(str(path), "group_size:1,zstd:1")
            assert writer is not None
            writer.write(row.to_bytes())
            count += 1
    except RuntimeError as error:
        raise _not_written(folder, error) from error
    finally:
        if writer is not None and writer.is_open():
            _close(writer, folder)
    return count


def _close(writer: Any, folder: Path) -> None:
    try:
        writer.close()
    except RuntimeError as error:
        raise _not_written(folder, error) from error


def _not_written(folder: Path, error: RuntimeError) -> UserError:
    first = str(error).strip().split("\n")[0]
    return UserError(
        f"a shard cannot be written: {first}", where=str(folder), fix="free space, or choose another --runs"
    )


def _files(folder: Path | str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob(f"*{SUFFIX}"))


def _source(folder: Path | str) -> Any:
    try:
        return grain.sources.ArrayRecordDataSource(_files(folder))
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise UserError(
            f"the shards cannot be read: {first}", where=str(folder), fix="run the data stage again"
        ) from error


def count_rows(folder: Path | str) -> int:
    """Packed rows in a folder of shards; 0 where there are none."""
    return len(_source(folder)) if _files(folder) else 0


def read_rows(folder: Path | str) -> Iterator[PackedRow]:
    """Every row in the order it was written."""
    source = _source(folder) if _files(folder) else []
    return (PackedRow.from_bytes(source[i]) for i in range(len(source)))


def collate(rows: list[PackedRow], batch_size: int, max_length: int) -> Batch:
    """Stack rows into [b, T] arrays: tokens, mask, segments (1.., 0 is padding), positions (restarting). Raises
    UserError for a row longer than `max_length`."""
    shape = (batch_size, max_length)
    batch: Batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "segments", "positions")}
    batch["mask"] = np.zeros(shape, bool)
    for b, row in enumerate(rows):
        n = len(row.ids)
        if n > max_length:
            raise UserError(f"a packed row of {n} tokens, max_length {max_length}", fix="run the data stage again")
        starts = np.cumsum(row.lengths) - row.lengths
        batch["tokens"][b, :n] = row.ids
        batch["mask"][b, :n] = row.mask
        batch["segments"][b, :n] = np.repeat(np.arange(1, len(row.lengths) + 1), row.lengths)
        batch["positions"][b, :n] = np.arange(n) - np.repeat(starts, row.lengths)
    return batch


def buckets_of(max_length: int, smallest: int = 128) -> tuple[int, ...]:
    """Lengths that batches of unpacked rows are padded to: doubling from `smallest`, the last one `max_length`."""
    doubling = [smallest << i for i in range(max_length.bit_length()) if smallest << i < max_length]
    return (*doubling, max_length)


@dataclass(frozen=True)
class _Read(grain.transforms.Map):
    """Indices of a global batch -> this process's rows of it, collated. Picklable, for Grain's worker processes.

    With `buckets`, all processes agree on one that holds every row of the global batch: each looks at all of them.
    """

    source: Any
    batch_size: int
    max_length: int
    process_index: int
    buckets: tuple[int, ...]

    def map(self, indices: list[int]) -> Batch:
        first = self.process_index * self.batch_size
        mine = slice(first, first + self.batch_size)
        wanted = [int(i) for i in (indices if self.buckets else indices[mine])]
        records = self.source.__getitems__(wanted) if wanted else []
        room = self.max_length
        if self.buckets:
            longest = max(PackedRow.length_of(record) for record in records)
            room = next((bucket for bucket in self.buckets if bucket >= longest), self.max_length)
            records = records[mine]
        return collate([PackedRow.from_bytes(record) for record in records], self.batch_size, room)


def open_batches(
    folder: Path | str,
    *,
    batch_size: int,
    max_length: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    epochs: int | None = None,
    buckets: tuple[int, ...] = (),
) -> grain.DatasetIterator[Batch]:
    """Iterate over batches, shuffled anew each epoch, for ever or for `epochs`; has get_state() and set_state().

    `batch_size` counts the rows of all processes together; each gets `batch_size / process_count` of them, and the
    processes' batches stacked in order are the one-process batch. A last, short batch is filled up with padding rows.
    Rows are padded to `max_length`; with `buckets` (ascending) to the first of these that holds the batch's longest.
    Raises UserError where there are no rows, or a batch does not divide over the processes.
    """
    rows = count_rows(folder)
    if rows == 0:
        raise UserError("no rows to read", where=str(folder), fix="run the data stage, or lower data.validation")
    if batch_size % process_count:
        raise UserError(f"a batch of {batch_size} rows does not divide over {process_count} processes")
    read = _Read(_source(folder), batch_size // process_count, max_length, process_index, tuple(buckets))
    order = (
        grain.MapDataset.range(rows)
        .shuffle(seed=seed)
        .repeat(epochs or -(-_ENDLESS // rows))
        .batch(batch_size, batch_fn=list)
    )
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    batches = order.map(read).to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which nobody here parses
        batches = batches.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=workers))
    return iter(batches)
