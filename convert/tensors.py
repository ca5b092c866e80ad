"""Safetensors, read one tensor (or a block of its rows) at a time: headers, the shard plan of a model folder, bytes.

The library's own reader for numpy has no bfloat16 and its writer wants every tensor in memory at once; the format is a
length, a JSON header and the bytes in order (github.com/huggingface/safetensors, "Format"), so streaming needs no more.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path

import ml_dtypes
import numpy as np

from common.errors import UserError
from common.files import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BLOCK_BYTES = 8 << 20
"""Float32 bytes of a weight that are in work at a time: fits the cache of two cores' worth of BLAS."""

FLOATS = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in FLOATS.items()}


@dataclass(frozen=True)
class Entry:
    """One tensor of a shard; `begin` and `end` are offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Shard:
    path: Path
    head: bytes
    """The file up to the first tensor's byte."""
    entries: tuple[Entry, ...]
    """In the order of their bytes, which leave no gap."""

    @property
    def bytes(self) -> int:
        return len(self.head) + sum(entry.bytes for entry in self.entries)


@dataclass(frozen=True)
class Weights:
    """The safetensors of a model folder; `shards` is empty where a folder has a configuration only."""

    folder: Path
    shards: tuple[Shard, ...]

    @cached_property
    def where(self) -> dict[str, tuple[Shard, Entry]]:
        return {entry.name: (shard, entry) for shard in self.shards for entry in shard.entries}


def read_weights(folder: Path) -> Weights:
    """The shard plan: the index where there is one, else model.safetensors."""
    if not folder.is_dir():
        raise UserError("no such model folder", where=str(folder), fix="give a folder with config.json and safetensors")
    if not (folder / INDEX).exists():
        single = folder / SINGLE
        return Weights(folder, (read_shard(single),) if single.exists() else ())
    try:
        plan: dict[str, str] = read_json(folder / INDEX)["weight_map"]
    except (ValueError, KeyError) as error:
        raise UserError(f"malformed index ({error})", where=str(folder / INDEX), fix="fetch the model again") from error
    weights = Weights(folder, tuple(read_shard(folder / name) for name in sorted(set(plan.values()))))
    for name, file in plan.items():
        if name not in weights.where or weights.where[name][0].path.name != file:
            raise UserError(f"the index promises {name}", where=str(folder / file), fix="fetch the model again")
    return weights


def read_shard(path: Path) -> Shard:
    """Read and check a header. Raises UserError for a file that is absent, malformed or cut off."""
    if not path.is_file():
        raise UserError("a weight file is missing", where=str(path), fix="fetch the model again")
    size = path.stat().st_size
    try:
        with open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if size < 8 + length:
                raise ValueError("cut off inside its header")
            f.seek(0)
            head = f.read(8 + length)
        table = json.loads(head[8:])
        entries = tuple(sorted(_entries(table, len(head)), key=lambda entry: (entry.begin, entry.end)))
        ends = [len(head), *(entry.end for entry in entries)]
        if [entry.begin for entry in entries] != ends[:-1]:
            raise ValueError("tensors overlap or leave gaps")
        if ends[-1] != size:
            raise ValueError(f"{size} bytes long, its header says {ends[-1]}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"not a whole safetensors file: {error}", where=str(path), fix="fetch or write the file again"
        ) from error
    return Shard(path, head, entries)


def _entries(table: Mapping[str, dict], start: int) -> Iterator[Entry]:
    for name, row in table.items():
        if name != "__metadata__":
            begin, end = row["data_offsets"]
            entry = Entry(name, row["dtype"], tuple(row["shape"]), start + begin, start + end)
            if entry.dtype in FLOATS and entry.bytes != math.prod(entry.shape) * FLOATS[entry.dtype].itemsize:
                raise ValueError(f"{name} has {entry.bytes} bytes for shape {list(entry.shape)}")
            yield entry


def make_head(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The head of a new file that holds these (name, dtype, shape) in order; transformers wants `format: pt`."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * FLOATS[dtype].itemsize
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_array(f: BufferedReader, entry: Entry) -> np.ndarray:
    """The whole tensor in its own dtype."""
    return read_rows(f, entry, 0, entry.shape[0]) if entry.shape else _read(f, entry, 0, 1).reshape(())


def read_rows(f: BufferedReader, entry: Entry, first: int, last: int) -> np.ndarray:
    """Rows first..last (exclusive) along the leading axis, in the tensor's own dtype."""
    width = math.prod(entry.shape[1:])
    return _read(f, entry, first * width, last * width).reshape(last - first, *entry.shape[1:])


def _read(f: BufferedReader, entry: Entry, first: int, last: int) -> np.ndarray:
    if entry.dtype not in FLOATS:
        raise UserError(
            f"weights of type {entry.dtype} cannot be changed",
            where=entry.name,
            fix="give the base in BF16, F16 or F32",
        )
    dtype = FLOATS[entry.dtype]
    raw = bytearray((last - first) * dtype.itemsize)
    f.seek(entry.begin + first * dtype.itemsize)
    if f.readinto(raw) != len(raw):
        raise UserError("the file ends inside this tensor", where=entry.name, fix="fetch the model again")
    return np.frombuffer(raw, dtype)


def blocks(entry: Entry) -> Iterator[tuple[int, int]]:
    """Row ranges of about BLOCK_BYTES in float32 that cover the tensor."""
    rows = max(1, BLOCK_BYTES // max(1, 4 * math.prod(entry.shape[1:])))
    for first in range(0, entry.shape[0], rows):
        yield first, min(first + rows, entry.shape[0])
