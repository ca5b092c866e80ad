"""Safetensors of a model folder: its tensors read one at a time, looked at for NaN on the way.

Read, not memory-mapped: pages of a map count as this process's memory, and a file that shrinks under a map is a crash.
"""

from collections.abc import Iterable
from io import RawIOBase
from pathlib import Path

import ml_dtypes
import numpy as np

from common.errors import UserError
from common.safetensors import Entry, Weights, read_weights

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
INFINITY = {"F64": 0x7FF << 52, "F32": 0xFF << 23, "F16": 0x1F << 10, "BF16": 0xFF << 7}
"""The bits of infinity; NaN is above it, every other number below (the sign aside)."""
CHUNK_BYTES = 1 << 19
"""Read at once: what was just read is looked at while it is in the cache."""


class WeightFiles:
    """The tensors of a folder's safetensors files. Raises UserError for files that are not whole."""

    def __init__(self, folder: str, headers: Weights | None = None):
        """`headers`: the folder's, where they are read already."""
        weights = headers or read_weights(Path(folder))
        if not weights.shards:
            fix = "model.path must hold weights in Hugging Face layout"
            raise UserError("no safetensors here", where=folder, fix=fix)
        self.where: dict[str, tuple[Path, Entry]] = {
            name: (shard.path, entry) for name, (shard, entry) in weights.where.items()
        }

    def names(self) -> Iterable[str]:
        return self.where.keys()

    def entry(self, name: str) -> Entry:
        return self._find(name)[1]

    def dtype(self, name: str, finite: bool = True) -> np.dtype:
        """Raises UserError for a type that weights cannot have (`finite`: that has no floating point)."""
        return _dtype(self._find(name)[1], finite)

    def read(self, name: str, finite: bool = False, into: np.ndarray | None = None) -> np.ndarray:
        """One tensor, in memory of its own or in `into` (contiguous, of its type and size).

        Raises UserError naming it where it is missing or of an unknown type, or, with `finite`, where it is not of
        floating point or holds NaN or infinity.
        """
        file, entry = self._find(name)
        return read_tensor(file, entry, finite, into)

    def _find(self, name: str) -> tuple[Path, Entry]:
        if name not in self.where:
            raise UserError(
                "the checkpoint lacks this tensor", where=name, fix="the weights and config.json belong together?"
            )
        return self.where[name]


def _dtype(entry: Entry, finite: bool) -> np.dtype:
    if entry.dtype not in (INFINITY if finite else DTYPES):
        what = f"a weight of type {entry.dtype} cannot be loaded"
        raise UserError(what, where=entry.name, fix="give weights in BF16, F16 or F32")
    return DTYPES[entry.dtype]


def read_tensor(file: Path, entry: Entry, finite: bool = False, into: np.ndarray | None = None) -> np.ndarray:
    """One tensor of a file. Raises UserError as `Checkpoint.read` does."""
    dtype = _dtype(entry, finite)
    tensor = np.empty(entry.shape, dtype) if into is None else into
    raw = tensor.reshape(-1).view(np.uint8)
    with open(file, "rb", buffering=0) as f:
        f.seek(entry.begin)
        for start in range(0, entry.bytes, CHUNK_BYTES):
            chunk = raw[start : start + CHUNK_BYTES]
            _read_into(f, chunk, entry.name)
            if finite and _spoiled(chunk, entry.dtype):
                fix = "download or write them again"
                raise UserError("the weights hold NaN or infinity", where=entry.name, fix=fix)
    return tensor


def _read_into(f: RawIOBase, chunk: np.ndarray, name: str) -> None:
    done = 0
    while done < chunk.size:
        count = f.readinto(chunk.data[done:])
        if not count:
            raise UserError("the file ends inside this tensor", where=name, fix="download or write it again")
        done += count


def _spoiled(chunk: np.ndarray, dtype: str) -> bool:
    """Whether it holds NaN or infinity: as integers, those are the largest with the sign bit, or without."""
    bits, size = INFINITY[dtype], DTYPES[dtype].itemsize
    sign = 1 << (8 * size - 1)
    return int(chunk.view(f"i{size}").max()) >= bits or int(chunk.view(f"u{size}").max()) >= sign + bits
