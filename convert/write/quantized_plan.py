"""Quantized exports, planned: which tensors become codes, how large the files are. Nothing here needs JAX."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from common.safetensors import Shard
from models.families import rows
from models.leaf import Leaf
from models.quant.layout import SCALE, Mode, mode_of, stored_shapes
from models.spec import DecoderSpec

FOLDER = "quantized"
Held = tuple[Leaf, Mode]
Stored = tuple[str, str, tuple[int, ...], int]
"""A tensor of a file: name, type, shape, bytes."""


@dataclass
class Export:
    """What was written: the error of a tensor is the norm of what its codes changed, as a share of its own norm."""

    mode: Mode
    errors: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        worst = max(self.errors, key=lambda name: self.errors[name])
        mean = sum(self.errors.values()) / len(self.errors)
        count = len(self.errors)
        return {
            "weights": self.mode,
            "tensors": count,
            "error_mean": mean,
            "error_max": self.errors[worst],
            "worst": worst,
        }


def quantized_tensors(spec: DecoderSpec, mode: Mode) -> dict[str, Held]:
    """Every HF tensor that is quantized, as a row of its own, and how."""
    found: dict[str, Held] = {}
    for leaf in rows(spec, stacked=False):
        if (own := mode_of(leaf, mode)) is None:
            continue
        inner = [(letter, size) for letter, size in leaf.size.items() if letter not in leaf.stacked]
        axes, shape = " ".join(letter for letter, _ in inner), tuple(size for _, size in inner)
        for name in leaf.hf_names:
            found[name] = dataclasses.replace(leaf, hf_names=(name,), our_axes=axes, shape=shape), own
    return found


def export_bytes(spec: DecoderSpec, tensors: dict[str, int], mode: Mode) -> int:
    """Size of the export of a model whose tensors have these sizes in bytes."""
    held = quantized_tensors(spec, mode)
    return sum(
        sum(row[3] for row in _parts(name, held[name])) if name in held else size for name, size in tensors.items()
    )


def _parts(name: str, held: Held) -> list[Stored]:
    codes, scale = stored_shapes(*held)
    kind = "I8" if held[1] == "int8" else "U8"
    return [(name, kind, codes, math.prod(codes)), (name + SCALE, "F32", scale, 4 * math.prod(scale))]


def export_rows(shard: Shard, held: dict[str, Held]) -> list[Stored]:
    """The tensors of a shard's export, in their order."""
    table: list[Stored] = []
    for entry in shard.entries:
        own = [(entry.name, entry.dtype, entry.shape, entry.bytes)]
        table += _parts(entry.name, held[entry.name]) if entry.name in held else own
    return table
