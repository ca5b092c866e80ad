"""PEFT's adapter layout, both ways: what `peft.PeftModel` and vLLM load, and what TRL, Unsloth or axolotl write.

What merging would silently lose (DoRA, biases, whole modules) is refused by name.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import digest_file, read_json
from common.safetensors import Shard, Weights, read_shard
from convert.adapter import Adapter, Pair, Place
from convert.merge import raw
from convert.output import Output
from convert.tensors import NAMES, make_head, read_array
from models.leaf import Leaf, from_hf

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."
WEIGHT = ".weight"
A, B = ".lora_A.weight", ".lora_B.weight"
REFUSED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "fan_in_fan_out",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
)
SPELLINGS = ("language_model.model.", "model.language_model.")
"""Of a multimodal model's text part: in older checkpoints, and in transformers' modules, which PEFT goes by."""
CHOOSES = ("layers_to_transform", "layers_pattern", "exclude_modules")
"""Keys that leave out layers on purpose."""


def read_peft(folder: Path, places: Mapping[str, Place]) -> Adapter:
    """`places`: the base's adaptable tensors. Raises UserError for what is missing or not supported."""
    config = _read_config(folder / CONFIG)
    shard = read_shard(folder / TENSORS)
    entries = {entry.name: entry for entry in shard.entries}
    pairs = {}
    for key, entry in entries.items():
        if key.endswith(B) and key.removesuffix(B) + A in entries:
            continue
        module = key.removeprefix(PREFIX).removesuffix(A)
        if not (key.startswith(PREFIX) and key.endswith(A) and PREFIX + module + B in entries):
            raise UserError(
                "this is not half of a LoRA pair", where=f"{folder / TENSORS}: {key}", fix="see PEFT's docs"
            )
        rank, scale = _rank_and_scale(config, module)
        found = (entry.shape[0], entries[PREFIX + module + B].shape[1])
        if found != (rank, rank):
            raise UserError(
                f"rank {found[0]} here, {rank} in {CONFIG}", where=key, fix="take both from one training run"
            )
        name = _tensor(module, places)
        place = places.get(name, Place(module, None))
        pairs[name] = Pair(name, place, rank, scale, partial(_load, shard, PREFIX + module))
    if not pairs:
        raise UserError("the adapter is empty", where=str(folder / TENSORS), fix="train it first")
    digest = hashlib.sha256("".join(digest_file(folder / name) for name in (CONFIG, TENSORS)).encode()).hexdigest()
    return Adapter(
        "lora",
        "peft",
        digest,
        rank=config["r"],
        alpha=float(config["lora_alpha"]),
        pairs=pairs,
        updated=partial(_updated, pairs),
        chosen_layers=any(config.get(key) for key in CHOOSES),
    )


def _tensor(module: str, places: Mapping[str, Place]) -> str:
    """The base's name of the weight that PEFT knows by its module."""
    old, new = SPELLINGS
    names = [start + module.removeprefix(other) + WEIGHT for start, other in ((old, new), (new, old))]
    return next((name for name in names if name in places), module + WEIGHT)


def _module(tensor: str) -> str:
    """The module of transformers that has the base's weight `tensor`."""
    old, new = SPELLINGS
    module = tensor.removesuffix(WEIGHT)
    return new + module.removeprefix(old) if module.startswith(old) else module


def _updated(pairs: Mapping[str, Pair], leaf: Leaf, base: np.ndarray) -> np.ndarray:
    def delta(name: str) -> np.ndarray:
        if name not in pairs:
            return np.zeros(leaf.hf_shape, np.float32)
        a, b = pairs[name].load()
        return (b @ a) * np.float32(pairs[name].scale)

    return base + from_hf(leaf, delta) if any(name in pairs for name in leaf.hf_names) else base


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
        kind, _, _ = config["peft_type"], config["r"], config["lora_alpha"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"not a PEFT configuration ({error})", where=str(path), fix="save the adapter again") from error
    if kind != "LORA":
        raise UserError(f"adapters of type {kind} cannot be merged", where=str(path), fix="train a LoRA adapter")
    refused = [key for key in REFUSED if config.get(key)]
    if config.get("bias", "none") != "none":
        refused.append("bias")
    if refused:
        raise UserError("this kind of adapter is not supported", where=f"{path}: {refused[0]}", fix="train without it")
    return config


def _rank_and_scale(config: dict[str, Any], module: str) -> tuple[int, float]:
    """PEFT's own rule: the first pattern that matches the module's name or its tail."""

    def choose(patterns: dict[str, Any] | None, default: Any) -> Any:
        matches = (value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module))
        return next(matches, default)

    rank = int(choose(config.get("rank_pattern"), config["r"]))
    alpha = float(choose(config.get("alpha_pattern"), config["lora_alpha"]))
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _load(shard: Shard, key: str) -> tuple[np.ndarray, np.ndarray]:
    entries = {entry.name: entry for entry in shard.entries}
    with open(shard.path, "rb") as f:
        a, b = (read_array(f, entries[key + half]).astype(np.float32) for half in (A, B))
    return a, b


def write_peft(out: Output, folder: str, adapter: Adapter, base: Weights, base_name: str) -> None:
    """Write the pairs as a PEFT adapter of the model called `base_name`."""
    halves: list[tuple[str, Pair, int]] = []
    for pair in sorted(adapter.pairs.values(), key=lambda pair: pair.name):
        module = _module(pair.name)
        halves += [(PREFIX + module + A, pair, 0), (PREFIX + module + B, pair, 1)]
    float32 = NAMES[np.dtype(np.float32)]
    shapes = [_half_shape(pair, half, base) for _, pair, half in halves]
    head = make_head(
        (key, float32, shape, 4 * math.prod(shape)) for (key, _, _), shape in zip(halves, shapes, strict=True)
    )
    with out.new(f"{folder}/{TENSORS}") as sink:
        sink.write(head)
        for _, pair, half in halves:
            sink.write(raw(pair.load()[half]))
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


def _whole(alpha: float | None) -> int | float | None:
    """PEFT declares lora_alpha an integer; a fraction works all the same."""
    return int(alpha) if alpha is not None and alpha.is_integer() else alpha


def _half_shape(pair: Pair, half: int, base: Weights) -> tuple[int, int]:
    rows, columns = base.where[pair.name][1].shape
    return (rows, pair.rank) if half else (pair.rank, columns)


def target_modules(adapted: set[str], every: set[str]) -> list[str]:
    """Short module names where they match adapted tensors only (as in PEFT's examples), else whole ones.

    PEFT looks at every module, so also at those that only hold others: a vision tower's `q_proj.linear.weight` has a
    `q_proj`.
    """
    modules = {_module(name) for name in adapted}
    short = {module.rsplit(".", 1)[-1] for module in modules}
    parts = (f"{_module(name)}.".split(".") for name in every)
    there = {".".join(part[:count]) for part in parts for count in range(1, len(part))}
    matched = {module for module in there if module.rsplit(".", 1)[-1] in short}
    return sorted(short if matched == modules else modules)
