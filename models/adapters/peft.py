"""PEFT's adapter layout, read: what TRL, Unsloth, axolotl or LLaMA-Factory write, by tensor of the base or by our row.

What merging or serving would silently lose (DoRA, biases, whole modules) is refused by name. Nothing here needs JAX.
"""

import hashlib
import itertools
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import digest_file
from common.safetensors import Entry, Shard, read_shard
from models.adapters.names import canonical, pairs_of, tensor_of
from models.adapters.options import CONFIG, options_of, read_peft_config
from models.leaf import LAYER, RANK, Leaf, lora_axes, lora_pair, lora_shapes
from models.weights.files import read_tensor

TENSORS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"


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
    shard: Shard
    """The file of the pairs."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Its keys that are not as PEFT writes them, with how it would."""


def read_peft_adapter(folder: Path, known: Container[str]) -> PeftAdapter:
    """`known`: the base's tensors that could be adapted. Raises UserError for what is missing or not supported."""
    if not (folder / CONFIG).is_file():
        fix = "give the folder that PEFT saved; of a train stage, tapeout convert writes it as adapter/"
        raise UserError(f"no {CONFIG} here", where=str(folder), fix=fix)
    config = read_peft_config(folder / CONFIG)  # first: what it asks for explains the keys of the file
    _must_be_safetensors(folder)
    shard = read_shard(folder / TENSORS)
    entries = {entry.name: entry for entry in shard.entries}
    keys = pairs_of(entries, shard.path)
    options = options_of(config, folder / CONFIG, keys)
    pairs: dict[str, PeftPair] = {}
    for module, halves in keys.items():
        rank, scale = options.of(module)
        a, b = entries[halves.a], entries[halves.b]
        if len(a.shape) != 2 or len(b.shape) != 2:
            fix = "save the adapter again"
            raise UserError("a half of a pair has two axes", where=f"{shard.path}: {halves.a}", fix=fix)
        if (a.shape[0], b.shape[1]) != (rank, rank):
            what = f"rank {a.shape[0]} and {b.shape[1]} here, {rank} in {CONFIG}"
            raise UserError(what, where=halves.a, fix="take both from one training run")
        name = tensor_of(module, known)
        if name in pairs:
            raise UserError("two pairs are of this tensor", where=f"{shard.path}: {name}", fix="keep one of them")
        pairs[name] = PeftPair(rank, scale, partial(_load, shard.path, a, b))
    if not pairs:
        raise UserError("the adapter is empty", where=str(folder / TENSORS), fix="train it first")
    digest = hashlib.sha256("".join(digest_file(folder / name) for name in (CONFIG, TENSORS)).encode()).hexdigest()
    renamed = {
        old: new
        for module, halves in keys.items()
        for old, new in zip((halves.a, halves.b), (canonical(module).a, canonical(module).b), strict=True)
        if old != new
    }
    return PeftAdapter(options.rank, options.alpha, options.scale, options.chosen_layers, pairs, digest, shard, renamed)


def _must_be_safetensors(folder: Path) -> None:
    if not (folder / TENSORS).is_file():
        pickled = (folder / PICKLED).is_file()
        what = f"{PICKLED} is a pickle, which can run code: it is not read" if pickled else f"no {TENSORS} here"
        fix = "save the adapter as safetensors: load it with PEFT, then save_pretrained" if pickled else "save it again"
        raise UserError(what, where=str(folder), fix=fix)


def is_zero(pair: PeftPair, name: str) -> bool:
    """Whether the pair changes nothing. Raises UserError where it is not finite: 0 x NaN is no update to leave out."""
    a, b = pair.load()
    check_finite(name, a, b)
    return norm_of_product(b, a) == 0.0


def norm_of_product(b: np.ndarray, a: np.ndarray) -> float:
    """Frobenius norm of b @ a from two rank x rank Gram matrices: no product of the weight's size is formed."""
    b64, a64 = b.astype(np.float64), a.astype(np.float64)
    return float(np.sqrt(max(0.0, np.sum((b64.T @ b64) * (a64 @ a64.T)))))


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
    check_finite(name, a, b)


def check_finite(name: str, a: np.ndarray, b: np.ndarray) -> None:
    """Raises UserError where a factor (`a` [r, in], `b` [out, r]) holds NaN or infinity."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("the adapter holds NaN or infinity", where=name, fix="save it again, or train it again")


def _load(path: Path, a: Entry, b: Entry) -> tuple[np.ndarray, np.ndarray]:
    first, second = (read_tensor(path, half).astype(np.float32) for half in (a, b))
    return first, second
