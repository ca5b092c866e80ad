"""The bytes of safetensors, as arrays: the head of a new file, and one tensor of an old one.

The library's own reader for numpy has no bfloat16 and its writer wants every tensor in memory at once; headers are
read in common/safetensors.py.
"""

import json
import math
from collections.abc import Iterable
from io import BufferedReader

import ml_dtypes
import numpy as np

from common.errors import UserError
from common.safetensors import Entry

FLOATS = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in FLOATS.items()}


def make_head(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The head of a new file that holds these (name, dtype, shape, bytes) in order; transformers wants `format: pt`."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape, size in tensors:
        begin, end = end, end + size
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_array(f: BufferedReader, entry: Entry) -> np.ndarray:
    """The whole tensor in its own dtype."""
    if entry.dtype not in FLOATS:
        what = f"weights of type {entry.dtype} cannot be changed"
        raise UserError(what, where=entry.name, fix="give the base in BF16, F16 or F32")
    dtype = FLOATS[entry.dtype]
    raw = bytearray(math.prod(entry.shape) * dtype.itemsize)
    f.seek(entry.begin)
    if f.readinto(raw) != len(raw):
        raise UserError("the file ends inside this tensor", where=entry.name, fix="fetch the model again")
    return np.frombuffer(raw, dtype).reshape(entry.shape)
