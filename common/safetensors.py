"""Safetensors without an array library: the files of a model folder, and their headers, trusted in nothing.

A file is a length, a JSON header and the tensors' bytes, in order and without gaps (github.com/huggingface/safetensors,
"Format"). Every size, offset and name is checked before a byte of a tensor is read.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "C64": 64},
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}
"""Bits of an element, by the format's name of its type."""
_HEADER_LIMIT = 100 << 20
_AGAIN = "fetch or write the file again"


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


def weight_files(folder: Path) -> list[Path]:
    """The shard plan: the files that the index names, else model.safetensors, else every safetensors file.

    Raises UserError for an index that is malformed or whose files are missing.
    """
    if (folder / INDEX).exists():
        return [folder / file for file in sorted(set(_index(folder).values()))]
    return [folder / SINGLE] if (folder / SINGLE).exists() else sorted(folder.glob("*.safetensors"))


def read_weights(folder: Path) -> Weights:
    """The headers of all files of the shard plan. Raises UserError for a missing folder or file, or a name that two
    files hold."""
    if not folder.is_dir():
        raise UserError("no such model folder", where=str(folder), fix="give a folder with config.json and safetensors")
    weights = Weights(folder, tuple(read_shard(file) for file in weight_files(folder)))
    if len(weights.where) != sum(len(shard.entries) for shard in weights.shards):
        names = sorted(entry.name for shard in weights.shards for entry in shard.entries)
        twice = next(a for a, b in pairwise(names) if a == b)
        raise UserError(f"several files hold {twice}", where=str(folder), fix="keep the files of one model only")
    if (folder / INDEX).exists():
        for name, file in _index(folder).items():
            if name not in weights.where or weights.where[name][0].path.name != file:
                raise UserError(f"the index promises {name}", where=str(folder / file), fix="fetch the model again")
    return weights


def _index(folder: Path) -> dict[str, str]:
    """Every tensor's file, as the index says; the files are there."""
    index = folder / INDEX
    try:
        plan: dict[str, str] = read_json(index)["weight_map"]
        files = sorted(set(plan.values()))
        for file in files:
            if not isinstance(file, str) or Path(file).name != file:
                raise ValueError(f"{file!r} is not the name of a file beside it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"malformed index ({error})", where=str(index), fix="fetch the model again") from error
    lost = [file for file in files if not (folder / file).is_file()]
    if lost:
        named = ", ".join(lost[:5]) + (" and more" if len(lost) > 5 else "")
        what = f"{len(lost)} of {len(files)} weight files are missing: {named}"
        raise UserError(what, where=str(index), fix="fetch the model again")
    return plan


def read_shard(path: Path) -> Shard:
    """Read and check a header. Raises UserError for a file that is absent, malformed or cut off."""
    if not path.is_file():
        raise UserError("a weight file is missing", where=str(path), fix="fetch the model again")
    size = path.stat().st_size
    try:
        with open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if size < 8 + length or length > _HEADER_LIMIT:
                raise ValueError("cut off inside its header")
            f.seek(0)
            head = f.read(8 + length)
        table = json.loads(head[8:], object_pairs_hook=_no_name_twice)
        entries = tuple(sorted(_entries(table, path, len(head)), key=lambda entry: (entry.begin, entry.end)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"not a whole safetensors file: {error}", where=str(path), fix=_AGAIN) from error
    ends = [len(head), *(entry.end for entry in entries)]
    for entry, end in zip(entries, ends, strict=False):
        if entry.begin != end:
            what = "not a whole safetensors file: tensors overlap or leave gaps"
            raise UserError(what, where=f"{path}: {entry.name}", fix=_AGAIN)
    if ends[-1] != size:
        what = f"not a whole safetensors file: {size} bytes long, its header says {ends[-1]}"
        raise UserError(what, where=str(path), fix=_AGAIN)
    return Shard(path, head, entries)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("its header names a tensor twice")
    return table


def _entries(table: dict[str, Any], path: Path, start: int) -> Iterator[Entry]:
    for name, row in table.items():
        if name == "__metadata__":
            continue
        (begin, end), dtype, shape = row["data_offsets"], row["dtype"], row["shape"]
        if dtype not in BITS:
            raise UserError(
                f"tensors of type {dtype} are not known",
                where=f"{path}: {name}",
                fix="give weights in BF16, F16 or F32",
            )
        if not all(type(n) is int and n >= 0 for n in (begin, end, *shape)):
            raise ValueError(f"{name} has sizes or offsets that are not whole numbers from 0 up")
        if 8 * (end - begin) != math.prod(shape) * BITS[dtype]:
            raise ValueError(f"{name} has {end - begin} bytes for shape {shape} of {dtype}")
        yield Entry(name, dtype, tuple(shape), start + begin, start + end)
