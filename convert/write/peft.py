"""PEFT's adapter layout, written: the pairs that were merged as an adapter of their base."""

import json
import math
from pathlib import Path

import numpy as np

from common.safetensors import Weights
from convert.adapters.adapter import Adapter, Pair
from convert.write.files import CHUNK, Output
from convert.write.headers import NAMES, make_head
from convert.write.merge import raw
from models.adapters.names import PREFIX, A, B, module_of
from models.adapters.options import CONFIG
from models.adapters.peft import TENSORS


def write_peft(out: Output, folder: str, adapter: Adapter, base: Weights, base_name: str) -> None:
    """Write the pairs as a PEFT adapter of the model called `base_name`."""
    halves: list[tuple[str, Pair, int]] = []
    for pair in sorted(adapter.pairs.values(), key=lambda pair: pair.name):
        module = module_of(pair.name)
        halves += [(PREFIX + module + A, pair, 0), (PREFIX + module + B, pair, 1)]
    float32 = NAMES[np.dtype(np.float32)]
    shapes = [_half_shape(pair, half, base, adapter) for _, pair, half in halves]
    head = make_head(
        (key, float32, shape, 4 * math.prod(shape)) for (key, _, _), shape in zip(halves, shapes, strict=True)
    )
    with out.new(f"{folder}/{TENSORS}") as sink:
        sink.write(head)
        for _, pair, half in halves:
            sink.write(raw(_filled(pair.load()[half], half, adapter)))
    config = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": _whole(adapter.alpha),
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": adapter.rank,
        "target_modules": target_modules(set(adapter.pairs), set(base.where)),
        "task_type": "CAUSAL_LM",
    }
    out.write(f"{folder}/{CONFIG}", (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def copy_peft(out: Output, folder: str, source: Path, adapter: Adapter) -> None:
    """The PEFT adapter that was merged, as it is; keys that PEFT would not read get the names that it would write."""
    out.copy(source / CONFIG, f"{folder}/{CONFIG}")
    if adapter.keys is None or not adapter.keys[1]:
        out.copy(source / TENSORS, f"{folder}/{TENSORS}")
        return
    shard, renamed = adapter.keys
    head = make_head(
        (renamed.get(entry.name, entry.name), entry.dtype, entry.shape, entry.bytes) for entry in shard.entries
    )
    with open(shard.path, "rb") as f, out.new(f"{folder}/{TENSORS}") as sink:
        f.seek(len(shard.head))
        sink.write(head)
        while chunk := f.read(CHUNK):
            sink.write(chunk)


def _whole(alpha: float | None) -> int | float | None:
    """PEFT declares lora_alpha an integer; a fraction works all the same."""
    return int(alpha) if alpha is not None and alpha.is_integer() else alpha


def _half_shape(pair: Pair, half: int, base: Weights, adapter: Adapter) -> tuple[int, int]:
    rows, columns = base.where[pair.name][1].shape
    rank = adapter.rank or pair.rank
    return (rows, rank) if half else (rank, columns)


def _filled(array: np.ndarray, half: int, adapter: Adapter) -> np.ndarray:
    """One rank for all, which every consumer reads: a smaller one is filled up with zeros, which change nothing."""
    more = (adapter.rank or array.shape[half]) - array.shape[half]
    return np.pad(array, ((0, 0), (0, more)) if half else ((0, more), (0, 0))) if more else array


def target_modules(adapted: set[str], every: set[str]) -> list[str]:
    """Short module names where they match adapted tensors only (as in PEFT's examples), else whole ones.

    PEFT looks at every module, so also at those that only hold others: a vision tower's `q_proj.linear.weight` has a
    `q_proj`.
    """
    modules = {module_of(name) for name in adapted}
    short = {module.rsplit(".", 1)[-1] for module in modules}
    parts = (f"{module_of(name)}.".split(".") for name in every)
    there = {".".join(part[:count]) for part in parts for count in range(1, len(part))}
    matched = {module for module in there if module.rsplit(".", 1)[-1] in short}
    return sorted(short if matched == modules else modules)
