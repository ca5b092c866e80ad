"""PEFT's adapter layout, read: what TRL, Unsloth, axolotl or LLaMA-Factory write, by tensor of the base or by our row.

What merging or serving would silently lose (DoRA, biases, whole modules) is refused by name. Nothing here needs JAX.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import digest_file, read_json
from common.safetensors import Shard, read_shard
from models.leaf import LAYER, RANK, Leaf, lora_axes, lora_pair, lora_shapes
from models.weights.files import read_tensor

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


@dataclass(frozen=True)
class PeftPair:
    """delta = scale * B @ A of one tensor."""

    rank: int
    scale: float
    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    """A [rank, in] and B [out, rank], float32."""


@dataclass(frozen=True)
class PeftAdapter:
    rank: int
    """Of the configuration; a module's pattern may say otherwise."""
    alpha: float
    scale: float
    """Of the configuration, too."""
    chosen_layers: bool
    """Its configuration says that some layers are left out on purpose."""
    pairs: Mapping[str, PeftPair]
    """By the base's tensor; by PEFT's module where the base has none."""
    digest: str


def read_peft_adapter(folder: Path, known: Container[str]) -> PeftAdapter:
    """`known`: the base's adaptable tensors. Raises UserError for what is missing or not supported."""
    if not (folder / CONFIG).is_file():
        fix = "give the folder that PEFT saved; of a train stage, tapeout convert writes it as adapter/"
        raise UserError(f"no {CONFIG} here", where=str(folder), fix=fix)
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
        pairs[_tensor(module, known)] = PeftPair(rank, scale, partial(_load, shard, PREFIX + module))
    if not pairs:
        raise UserError("the adapter is empty", where=str(folder / TENSORS), fix="train it first")
    digest = hashlib.sha256("".join(digest_file(folder / name) for name in (CONFIG, TENSORS)).encode()).hexdigest()
    chosen = any(config.get(key) for key in CHOOSES)
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return PeftAdapter(rank, alpha, _scale(config, rank, alpha), chosen, pairs, digest)


def _tensor(module: str, known: Container[str]) -> str:
    """The base's name of the weight that PEFT knows by its module."""
    old, new = SPELLINGS
    names = [start + module.removeprefix(other) + WEIGHT for start, other in ((old, new), (new, old))]
    return next((name for name in names if name in known), module + WEIGHT)


def module_of(tensor: str) -> str:
    """The module of transformers that has the base's weight `tensor`."""
    old, new = SPELLINGS
    module = tensor.removesuffix(WEIGHT)
    return new + module.removeprefix(old) if module.startswith(old) else module


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
    return rank, _scale(config, rank, float(choose(config.get("alpha_pattern"), config["lora_alpha"])))


def _scale(config: dict[str, Any], rank: int, alpha: float) -> float:
    """rsLoRA divides by the root of the rank (Kalajdzievski 2023)."""
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


@dataclass(frozen=True)
class StackedPair:
    """The pairs of a row's HF tensors, as one: A and B have the axes of `models.leaf.lora_axes`, float32."""

    a: np.ndarray
    b: np.ndarray

    @property
    def rank(self) -> int:
        return self.a.shape[-1]


def joined(leaf: Leaf, adapter: PeftAdapter) -> StackedPair | None:
    """One A and B for all tensors of a row, exactly; None where the adapter leaves the row alone.

    We multiply k and v (gate and up) as one, with one A; PEFT has an A for each. Where those differ they stand side by
    side along the rank, and each tensor's B is zero where the others' A stands. Ranks are filled up with zeros; a scale
    that is not the adapter's own is a factor of B. Raises UserError for a pair that does not fit, or is not finite.
    """
    layers: dict[int, list[Part]] = {}
    for name, index in leaf.index():
        if (pair := adapter.pairs.get(name)) is None:
            continue
        a, b = pair.load()
        _check(leaf, name, a, b)
        if pair.scale != adapter.scale:
            b = b * np.float32(pair.scale / adapter.scale)
        at: dict[str, Any] = dict(zip(leaf.stacked, index, strict=True))
        layers.setdefault(at.get(LAYER, 0), []).append((at, *lora_pair(leaf, a, b)))
    if not layers:
        return None
    slots = [slot for parts in layers.values() for slot in _side_by_side(parts)]
    shapes = lora_shapes(leaf, max(slot[RANK].stop for slot, _, _ in slots))
    wide_a, wide_b = (np.zeros(shape, np.float32) for shape in shapes)
    a_axes, b_axes = lora_axes(leaf)
    for slot, a, b in slots:
        wide_a[tuple(slot.get(x, slice(None)) for x in a_axes)] = a
        wide_b[tuple(slot.get(x, slice(None)) for x in b_axes)] = b
    return StackedPair(wide_a, wide_b)


Part = tuple[dict[str, Any], np.ndarray, np.ndarray]
"""Where a pair of one layer stands, by letter; its A and B."""


def _side_by_side(parts: list[Part]) -> list[Part]:
    """The pairs of one layer, each with its place along the rank: the same one where they share an A."""
    first = parts[0][1]
    if all(np.array_equal(a, first) for _, a, _ in parts):
        return [({**at, RANK: slice(0, first.shape[-1])}, a, b) for at, a, b in parts]
    ends = itertools.accumulate(a.shape[-1] for _, a, _ in parts)
    return [({**at, RANK: slice(end - a.shape[-1], end)}, a, b) for end, (at, a, b) in zip(ends, parts, strict=True)]


def _check(leaf: Leaf, name: str, a: np.ndarray, b: np.ndarray) -> None:
    found = (b.shape[0], a.shape[1])
    if found != leaf.hf_shape:
        what = f"the adapter's update has shape {list(found)}, the base's tensor {list(leaf.hf_shape)}"
        raise UserError(what, where=name, fix="name the base that the adapter was trained on")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("the adapter holds NaN or infinity", where=name, fix="save it again, or train it again")


def _load(shard: Shard, key: str) -> tuple[np.ndarray, np.ndarray]:
    entries = {entry.name: entry for entry in shard.entries}
    a, b = (read_tensor(shard.path, entries[key + half]).astype(np.float32) for half in (A, B))
    return a, b
