"""The merged model once more, with quantized weights, for the serving stage: docs/quantization.md has the layout.

It is read back from the files that were just written, one tensor at a time; codes are written as they are made.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.progress import Bar, bar
from common.safetensors import INDEX, Entry
from convert.write.carried import carried_files
from convert.write.files import Output, Sink
from convert.write.headers import make_head
from convert.write.merge import raw
from convert.write.quantized_plan import FOLDER, Export, Held, export_rows, quantized_tensors
from models.folder.opened import ModelFolder
from models.quant.layout import Mode, about_mode
from models.quant.quantize import quantized_blocks
from models.quant.weight import Quantized
from models.weights.files import WeightFiles

CONFIG = "config.json"


def export(output: Output, model: Path, mode: Mode) -> Export:
    """Write `quantized/` from the folder `model`."""
    jax.config.update("jax_platforms", "cpu")  # no accelerator's memory is taken for a conversion
    merged = ModelFolder(model)
    weights, held = merged.headers, quantized_tensors(merged.spec, mode)
    done = Export(mode)
    where: dict[str, str] = {}
    with bar("quantize", len(held), "tensors") as progress:
        for shard in weights.shards:
            table = export_rows(shard, held)
            with output.new(f"{FOLDER}/{shard.path.name}") as sink:
                sink.write(make_head(table))
                for entry in shard.entries:
                    _write(sink, entry, held.get(entry.name), merged.weights, done, progress)
            where |= {name: shard.path.name for name, *_ in table}
    if len(weights.shards) > 1:
        output.write(f"{FOLDER}/{INDEX}", _json({"metadata": {}, "weight_map": dict(sorted(where.items()))}))
    carried, _ = carried_files(model, {shard.path.name for shard in weights.shards})
    for name in carried:
        if name not in (INDEX, CONFIG):
            output.copy(model / name, f"{FOLDER}/{name}")
    about = {**merged.config, "quantization_config": about_mode(mode)}
    output.write(f"{FOLDER}/{CONFIG}", _json(about))
    return done


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _write(sink: Sink, entry: Entry, held: Held | None, checkpoint: WeightFiles, done: Export, progress: Bar) -> None:
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
