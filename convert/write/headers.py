"""The head of a new safetensors file: the library's own writer wants every tensor in memory at once."""

import json
from collections.abc import Iterable

import ml_dtypes
import numpy as np

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
