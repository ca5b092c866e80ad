"""Rows of any source as a stream: JSON line by line or as an array, CSV by row, Parquet and Arrow in batches.

Each kind has its own reader, so that an error names its file and line (or row); memory is one batch.
"""

import csv
import io
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from common.errors import UserError
from common.files import read_json
from data.config import KINDS, TABLES, DataConfig, Source, ending, listed
from data.sources.json_rows import BadRow, count_lines, is_array, read_array, read_lines
from data.sources.packed import opened

BATCH, SHUFFLE_WINDOW = 256, 10_000
_STATE, _SPLITS = "state.json", "dataset_dict.json"
Placed = tuple[str, dict[str, Any] | BadRow]
"""A row, or why it is none, with its "file:line"."""


def files_of(source: Source) -> list[str]:
    """The files of a source, sorted by path. Raises UserError where there are none."""
    path = Path(source.path)
    if not path.is_dir():
        return [source.path]
    found = _of_saved(listed(source), path, source.split)
    if not found:
        which = f" that match {source.files}" if source.files else ""
        raise UserError(f"no files of rows{which}", where=source.path, fix=f"known endings: {', '.join(sorted(KINDS))}")
    return [str(p) for p in found]


def _of_saved(files: list[Path], root: Path, split: str | None) -> list[Path]:
    """Of what `save_to_disk` has written: the files that its state names, of the split that is asked for."""
    if (root / _SPLITS).is_file():
        names = _named(root / _SPLITS, "splits")
        chosen = split or "train"
        if chosen not in names:
            raise UserError(
                f"no split {chosen!r}", where=str(root), fix=f"data.sources.split: one of {', '.join(names)}"
            )
        files = [file for file in files if file.is_relative_to(root / chosen)]
    saved: dict[Path, set[str]] = {}
    for folder in {file.parent for file in files}:
        if (folder / _STATE).is_file():
            parts = _named(folder / _STATE, "_data_files")
            saved[folder] = {str(part["filename"]) for part in parts if isinstance(part, dict) and "filename" in part}
    return [file for file in files if file.parent not in saved or file.name in saved[file.parent]]


def _named(path: Path, key: str) -> list[Any]:
    content: Any = read_json(path)
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _unreadable(path: str, error: Exception) -> UserError:
    first = str(error).strip().split("\n")[0]
    return UserError(f"the file cannot be read: {first}", where=path, fix="it may be cut short; fetch it again")


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    if path.lower().endswith(".parquet"):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH)
        return
    with pa.memory_map(path) as file:
        try:
            reader: Any = ipc.open_file(file)
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            file.seek(0)
            yield from ipc.open_stream(file)


def _table(path: str) -> Iterator[Placed]:
    number = 0
    try:
        for batch in _batches(path):
            _check_header(batch.schema.names, path)
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", {name: _filled(value) for name, value in row.items()}
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _check_header(names: Sequence[str], where: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two columns are called {twice[0]!r}", where=where, fix="rename one of them")


def _filled(value: Any) -> Any:
    """A table's value without the nulls that every object of one column has for the keys of the others."""
    if isinstance(value, dict):
        return {key: _filled(one) for key, one in value.items() if one is not None}
    return [_filled(one) for one in value] if isinstance(value, list) else value


def _csv(path: str) -> Iterator[Placed]:
    csv.field_size_limit(1 << 30)
    with opened(path) as packed, io.TextIOWrapper(packed, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            _check_header(reader.fieldnames or (), f"{path}:{reader.line_num}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    yield where, BadRow("not as many fields as the header", where=where, fix="mend the row")
                else:
                    yield where, row
        except (csv.Error, UnicodeDecodeError) as error:
            at = f"{path}:{reader.line_num + 1}"
            raise UserError(f"malformed CSV: {error}", where=at, fix="mend the file, saved as UTF-8") from None


def _file(path: str) -> Iterator[Placed]:
    if not Path(path).is_file():
        raise UserError("no such file of rows", where=path, fix="give data.sources a local file, folder or glob")
    kind = Path(path).suffix.lower()
    if kind in TABLES:
        return _table(path)
    if ending(path) == ".csv":
        return _csv(path)
    return read_array(path) if is_array(path) else read_lines(path)


def _shuffled(rows: Iterable[Placed], seed: int) -> Iterator[Placed]:
    """Each row leaves the window at random, as the next one enters."""
    stream, rng = iter(rows), random.Random(seed)
    window = list(itertools.islice(stream, SHUFFLE_WINDOW))
    for row in stream:
        i = rng.randrange(len(window))
        window[i], row = row, window[i]
        yield row
    rng.shuffle(window)
    yield from window


def rows_of(source: Source) -> Iterator[Placed]:
    """Up to `limit` rows of one source."""
    rows = itertools.chain.from_iterable(map(_file, files_of(source)))
    if source.shuffle is not None:
        rows = _shuffled(rows, source.shuffle)
    return itertools.islice(rows, source.limit)


def all_rows(config: DataConfig) -> Iterator[tuple[Source, str, dict[str, Any] | BadRow]]:
    """Sources one after the other; with weights in turns: the one that lags most goes next, until one runs out."""
    streams = [rows_of(source) for source in config.sources]
    if config.sources[0].weight is None:
        for source, rows in zip(config.sources, streams, strict=True):
            yield from ((source, where, row) for where, row in rows)
        return
    taken = [0] * len(streams)
    while True:
        i = min(range(len(streams)), key=lambda j: ((taken[j] + 1) / (config.sources[j].weight or 1), j))
        found = next(streams[i], None)
        if found is None:
            return
        taken[i] += 1
        yield (config.sources[i], *found)


def _size(path: str) -> int:
    try:
        if path.lower().endswith(".parquet"):
            with pq.ParquetFile(path) as file:
                return file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    return 0 if Path(path).suffix.lower() in TABLES else count_lines(path)


def count_rows(config: DataConfig) -> int:
    """About how many rows there are to read, for the progress bar."""
    return sum(min(sum(map(_size, files_of(source))), source.limit or 2**63) for source in config.sources)
