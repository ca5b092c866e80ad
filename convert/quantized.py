"""The merged model once more, with quantized weights, for the serving stage: docs/quantization.md has the layout.

It is read back from the files that were just written, one tensor at a time; codes are written as they are made.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.files import read_json
from common.progress import Bar, bar
from common.safetensors import INDEX, Entry, Shard, read_weights
from convert.merge import raw
from convert.output import Output, Sink, carried_files
from convert.tensors import make_head
from models.checkpoint import Checkpoint
from models.families import read_spec, rows
from models.leaf import Leaf
from models.quantize import quantized_blocks
from models.quantized import Quantized
from models.quantized_layout import SCALE, Mode, about_mode, mode_of, stored_shapes

FOLDER = "quantized"
CONFIG = "config.json"
Held = tuple[Leaf, Mode]
Row = tuple[str, str, tuple[int, ...], int]
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


def export(output: Output, model: Path, mode: Mode) -> Export:
    """Write `quantized/` from the folder `model`."""
    jax.config.update("jax_platforms", "cpu")  # no accelerator's memory is taken for a conversion
    weights, held = read_weights(model), quantized_tensors(model, mode)
    done = Export(mode)
    checkpoint = Checkpoint(str(model))
    where: dict[str, str] = {}
    with bar("quantize", len(held), "tensors") as progress:
        for shard in weights.shards:
            table = _rows(shard, held)
            with output.new(f"{FOLDER}/{shard.path.name}") as sink:
                sink.write(make_head(table))
                for entry in shard.entries:
                    _write(sink, entry, held.get(entry.name), checkpoint, done, progress)
            where |= {name: shard.path.name for name, *_ in table}
    if len(weights.shards) > 1:
        output.write(f"{FOLDER}/{INDEX}", _json({"metadata": {}, "weight_map": dict(sorted(where.items()))}))
    carried, _ = carried_files(model, {shard.path.name for shard in weights.shards})
    for name in carried:
        if name not in (INDEX, CONFIG):
            output.copy(model / name, f"{FOLDER}/{name}")
    about = {**read_json(model / CONFIG), "quantization_config": about_mode(mode)}
    output.write(f"{FOLDER}/{CONFIG}", _json(about))
    return done


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def quantized_tensors(model: Path, mode: Mode) -> dict[str, Held]:
    """Every HF tensor that is quantized, as a row of its own, and how."""
    found: dict[str, Held] = {}
    for leaf in rows(read_spec(str(model)), stacked=False):
        if (own := mode_of(leaf, mode)) is None:
            continue
        inner = [(letter, size) for letter, size in leaf.size.items() if letter not in leaf.stacked]
        axes, shape = " ".join(letter for letter, _ in inner), tuple(size for _, size in inner)
        for name in leaf.hf_names:
            found[name] = dataclasses.replace(leaf, hf_names=(name,), our_axes=axes, shape=shape), own
    return found


def export_bytes(model: Path, tensors: dict[str, int], mode: Mode) -> int:
    """Size of the export of a model whose tensors have these sizes in bytes."""
    held = quantized_tensors(model, mode)
    return sum(
        sum(row[3] for row in _parts(name, held[name])) if name in held else size for name, size in tensors.items()
    )


def _parts(name: str, held: Held) -> list[Row]:
    codes, scale = stored_shapes(*held)
    kind = "I8" if held[1] == "int8" else "U8"
    return [(name, kind, codes, math.prod(codes)), (name + SCALE, "F32", scale, 4 * math.prod(scale))]


def _rows(shard: Shard, held: dict[str, Held]) -> list[Row]:
    table: list[Row] = []
    for entry in shard.entries:
        own = [(entry.name, entry.dtype, entry.shape, entry.bytes)]
        table += _parts(entry.name, held[entry.name]) if entry.name in held else own
    return table


def _write(sink: Sink, entry: Entry, held: Held | None, checkpoint: Checkpoint, done: Export, progress: Bar) -> None:
    if held is None:
        for piece in _bytes(checkpoint.where[entry.name][0], entry):
            sink.write(piece)
        return
    leaf, mode = held
    tensor = checkpoint.read(entry.name, finite=True)
    scales, lost, total = [], 0.0, 0.0
    for part, codes, scale in quantized_blocks(leaf, mode, entry.name, tensor):
        sink.write(raw(codes))
        scales.append(raw(scale))
        before = tensor.reshape(leaf.shape)[part].astype(np.float32)
        after = np.asarray(_widened(Quantized(jnp.asarray(codes), jnp.asarray(scale), mode, "float32")))
        total += float(np.vdot(before, before))
        lost += float(np.vdot(after - before, after - before))
    for scale in scales:
        sink.write(scale)
    done.errors[entry.name] = (lost / total) ** 0.5 if total else 0.0
    progress.advance()


_widened = jax.jit(Quantized.wide)


def _bytes(path: Path, entry: Entry) -> Iterator[bytes]:
    with open(path, "rb") as f:
        f.seek(entry.begin)
        left = entry.bytes
        while left:
            piece = f.read(min(left, 8 << 20))
            left -= len(piece)
            yield piece
