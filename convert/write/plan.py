"""Which files the merged model gets and which tensors stand in each: the base's own shards, or shards of a chosen size.

Everything about the result that is known before a byte is written: names, heads, sizes, the index.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from common.safetensors import SINGLE, Entry, Shard
from convert.adapters.adapter import Adapter
from convert.write.headers import FLOATS, NAMES, make_head
from models.folder.opened import ModelFolder

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Part:
    """One tensor of an output file; `source` is its place in the base (None: a trained tensor that the base lacks)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: tuple[Shard, Entry] | None

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def width(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def bytes(self) -> int:
        if self.source is not None:
            return self.source[1].bytes
        return math.prod(self.shape) * FLOATS[self.dtype].itemsize


@dataclass(frozen=True)
class File:
    name: str
    head: bytes
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return len(self.head) + sum(part.bytes for part in self.parts)


@dataclass(frozen=True)
class Plan:
    files: tuple[File, ...]
    index: bytes | None
    """A new index; None: the base's own is carried, or there is one file."""

    @property
    def tensors(self) -> int:
        return sum(len(file.parts) for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files) + len(self.index or b"")

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return max((part.bytes for file in self.files for part in file.parts), default=0)


def make_plan(model: ModelFolder, adapter: Adapter, max_shard_size: str | None) -> Plan:
    """The base's shards again, same heads and order; or, with `max_shard_size`, new ones and a new index."""
    base = model.headers
    if base.shards and max_shard_size is None:
        return Plan(tuple(_same(shard) for shard in base.shards), None)
    parts = [part for shard in base.shards for part in _same(shard).parts]
    if not base.shards:
        dtype = _own_dtype(model.config)
        parts = [Part(value.name, dtype, value.shape, None) for value in adapter.values.values()]
    groups = list(_packed(parts, math.inf if max_shard_size is None else size_of(max_shard_size)))
    count = len(groups)
    names = [SINGLE] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    files = tuple(File(name, _head(group), tuple(group)) for name, group in zip(names, groups, strict=True))
    return Plan(files, _index(files) if count > 1 else None)


def size_of(text: str) -> int:
    """Bytes of "5GB", "500 MB" or "1GiB". Raises UserError for other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    if match is None or match[2].upper() not in UNITS or (size := int(float(match[1]) * UNITS[match[2].upper()])) < 1:
        raise UserError(f"{text!r} is no size", where="convert.max_shard_size", fix="write a size such as 5GB or 500MB")
    return size


def _same(shard: Shard) -> File:
    parts = tuple(Part(entry.name, entry.dtype, entry.shape, (shard, entry)) for entry in shard.entries)
    return File(shard.path.name, shard.head, parts)


def _packed(parts: list[Part], limit: float) -> Iterator[list[Part]]:
    """Neighbours together while they fit; a tensor larger than the limit has a file to itself."""
    group: list[Part] = []
    size = 0
    for part in parts:
        if group and size + part.bytes > limit:
            yield group
            group, size = [], 0
        group.append(part)
        size += part.bytes
    yield group


def _head(parts: list[Part]) -> bytes:
    return make_head((part.name, part.dtype, part.shape, part.bytes) for part in parts)


def _index(files: tuple[File, ...]) -> bytes:
    where = {part.name: file.name for file in files for part in file.parts}
    total = sum(part.bytes for file in files for part in file.parts)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    return (json.dumps(index, indent=2) + "\n").encode()


def _own_dtype(about: dict[str, Any]) -> str:
    """The safetensors name of the type that config.json promises, for a base without weights."""
    text = about.get("text_config") or {}
    named = about.get("dtype") or about.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype") or "float32"
    matches = [name for dtype, name in NAMES.items() if dtype.name == named]
    if not matches:
        raise UserError(f"unknown type {named!r}", where="config.json: dtype", fix="write float32 or bfloat16")
    return matches[0]
