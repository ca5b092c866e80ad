"""Safetensors of a model folder: which file holds which tensor, read one at a time, and the folder's digest."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

from common.errors import UserError
from common.files import digest_file

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


def weight_files(folder: str) -> list[Path]:
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise UserError("no safetensors here", where=folder, fix="model.path must hold weights in Hugging Face layout")
    return files


def base_digest(folder: str) -> str:
    """sha256 over config.json and the weights: what an adapter was trained on."""
    total = hashlib.sha256()
    for file in [Path(folder) / "config.json", *weight_files(folder)]:
        total.update(f"{file.name}\0{digest_file(file)}\0".encode())
    return total.hexdigest()


class Checkpoint:
    """The tensors of a folder's safetensors files, memory-mapped."""

    def __init__(self, folder: str):
        self.where: dict[str, tuple[Path, str, tuple[int, ...], int, int]] = {}
        for file in weight_files(folder):
            self._index(file)
        self.maps: dict[Path, np.memmap] = {}

    def _index(self, file: Path) -> None:
        size = os.path.getsize(file)
        damaged = UserError("damaged safetensors file", where=str(file), fix="download or write it again")
        with open(file, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if size < 8 or length > size - 8:
                raise damaged
            try:
                header = json.loads(f.read(length))
            except ValueError:
                raise damaged from None
        for name, info in header.items():
            if name == "__metadata__":
                continue
            start, end = info["data_offsets"]
            dtype, shape = info["dtype"], tuple(info["shape"])
            if dtype not in DTYPES:
                raise UserError(f"tensor type {dtype} is not supported", where=f"{file}: {name}")
            if end + 8 + length > size or end - start != int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype].itemsize:
                raise UserError("the file's header and its size disagree", where=f"{file}: {name}", fix=damaged.fix)
            self.where[name] = (file, dtype, shape, start + 8 + length, end - start)

    def names(self) -> Iterable[str]:
        return self.where.keys()

    def read(self, name: str) -> np.ndarray:
        """A read-only view of one tensor. Raises UserError naming it where it is missing."""
        if name not in self.where:
            raise UserError(
                "the checkpoint lacks this tensor", where=name, fix="the weights and config.json belong together?"
            )
        file, dtype, shape, start, size = self.where[name]
        if file not in self.maps:
            self.maps[file] = np.memmap(file, np.uint8, "r")
        return self.maps[file][start : start + size].view(DTYPES[dtype]).reshape(shape)
