"""`python -m models.folder.inspect JOB.json`: what a model folder is, and what becomes of each of its tensors.

JOB = {"folder": DIR}; prints {"about": {...}, "text": the same in words}.

Headers only, and no JAX: it answers at once, for a folder of any size.
"""

import math
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.answer import answer
from common.safetensors import Entry
from common.terminal import visible, visible_name
from models.families import rows
from models.folder.coverage import Coverage, Wanted, coverage, wanted
from models.folder.opened import ModelFolder
from models.leaf import Leaf
from models.spec import DecoderSpec

BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}
"""A parameter's, without the scales of quantized types."""
KINDS = ("used", "carried through", "missing", "unexpected")


def describe(folder: Path) -> dict[str, Any]:
    """Everything that is printed. Raises UserError for a folder that is no model."""
    model = ModelFolder(folder)
    spec, weights, mode = model.spec, model.headers, model.stored
    table = rows(spec, stacked=True)
    entries = {name: entry for name, (_, entry) in weights.where.items()}
    wants = wanted(table, mode)
    found = coverage(spec, wants, entries)
    parameters = sum(math.prod(leaf.shape) for leaf in table)
    return {
        "family": spec.family,
        "width": spec.width,
        "vocabulary": spec.vocab,
        "layers": [_layers(spec, kind) for kind in spec.kinds],
        "parameters": parameters,
        "weights": mode or "in full",
        "memory": {dtype: int(parameters * size) for dtype, size in BYTES.items()},
        "files": {shard.path.name: shard.bytes for shard in weights.shards},
        "stored": dict(Counter(entry.dtype for entry in entries.values())),
        "rows": [_row(leaf) for leaf in table],
        "counts": {kind: sum(fate.kind == kind for fate in found) for kind in KINDS},
        "tensors": [
            {"name": fate.tensor, "fate": fate.kind, "row": fate.row}
            | _stored(entries.get(fate.tensor))
            | _misfit(fate, wants, entries)
            for fate in found
        ],
    }


def _layers(spec: DecoderSpec, kind: str) -> dict[str, Any]:
    layer = spec.of_kind(kind)
    return {
        "kind": kind,
        "count": len(spec.numbers(kind)),
        "heads": layer.heads,
        "kv_heads": layer.kv_heads,
        "head_dim": layer.head_dim,
        "mlp_dim": layer.mlp_dim,
        "window": layer.window,
        "k_is_v": layer.k_is_v,
    }


def _row(leaf: Leaf) -> dict[str, Any]:
    axes = {"axes": leaf.our_axes, "shape": leaf.shape, "hf_axes": leaf.hf_axes}
    return {"path": leaf.path, **axes, "tensors": len(leaf.hf_names)}


def _stored(entry: Entry | None) -> dict[str, Any]:
    return {} if entry is None else {"dtype": entry.dtype, "shape": entry.shape}


def _misfit(fate: Coverage, wants: Mapping[str, Wanted], entries: Mapping[str, Entry]) -> dict[str, Any]:
    """The shape that config.json says, where the tensor has another."""
    if fate.kind != "used" or entries[fate.tensor].shape == wants[fate.tensor].shape:
        return {}
    return {"expected_shape": wants[fate.tensor].shape}


def text(about: dict[str, Any]) -> str:
    lines = [f"{about['family']}: width {about['width']}, vocabulary {about['vocabulary']}"]
    for layer in about["layers"]:
        window = f", window {layer['window']}" if layer["window"] else ""
        shared = ", keys are values" if layer["k_is_v"] else ""
        lines.append(
            f"  {layer['count']} {layer['kind']} layers: {layer['heads']} heads, {layer['kv_heads']} kv heads "
            f"x {layer['head_dim']}, mlp {layer['mlp_dim']}{window}{shared}"
        )
    memory = ", ".join(f"{dtype} {size / 2**30:.3g} GiB" for dtype, size in about["memory"].items())
    lines += [f"parameters: {about['parameters']:,}, {about['weights']}", f"memory: {memory}"]
    lines.append(f"files: {len(about['files'])}, {sum(about['files'].values()):,} bytes")
    lines += ["", f"{'row':32} {'axes':12} {'shape':28} HF tensors"]
    for row in about["rows"]:
        lines.append(f"{row['path']:32} {row['axes']:12} {list(row['shape'])!s:28} {row['tensors']} x {row['hf_axes']}")
    lines += ["", f"{'tensor':64} fate"]
    for tensor in about["tensors"]:
        fate = f"used by {tensor['row']}" if tensor["fate"] == "used" else tensor["fate"]
        if tensor["fate"] == "missing":
            fate += f", wanted by {tensor['row']}"
        if "expected_shape" in tensor:
            fate += f", but its shape is {list(tensor['shape'])}, not {list(tensor['expected_shape'])}"
        lines.append(f"{visible_name(tensor['name']):64} {fate}")
    return "\n".join([*lines, "", ", ".join(f"{n} {kind}" for kind, n in about["counts"].items())])


def inspect(job: dict[str, Any]) -> dict[str, Any]:
    """What is printed: `describe`, and beside it the same in words."""
    about = describe(Path(job["folder"]))
    return {"about": about, "text": visible(text(about))}


if __name__ == "__main__":
    sys.exit(answer(inspect))
