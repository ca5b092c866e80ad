"""Read what the train stage wrote: adapter.json and the Orbax checkpoint of one step, as numpy on the CPU."""

import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from common.digests.saved import SEAL, check_digests, check_seal
from common.errors import UserError
from common.files import read_json
from convert.adapters.adapter import ANOTHER_MODEL, METADATA, Adapter, Pair, Value, site_of
from convert.config import ConvertConfig
from models.leaf import RANK, Leaf, lora_axes, lora_shapes, peft_pair, to_hf
from models.spec import DecoderSpec

CHECKPOINTS = "checkpoints"
ITEM = "trained"
ANOTHER_STEP = "choose another step with convert.step, or run the train stage again"
KEYS = {"lora": ("base_digest", "rank", "alpha", "targets"), "full": ()}


def read_trained(folder: Path, config: ConvertConfig, spec: DecoderSpec, table: list[Leaf]) -> Adapter:
    """`table`: the stacked rows of `spec`. Raises UserError for anything absent, damaged or of another model."""
    about = _metadata(folder / METADATA)
    weights = _pick(folder / CHECKPOINTS, config)
    if about.pop(SEAL, None) is not None:  # the train stage's own: its checkpoints have digests, too
        for each in weights:
            check_digests(folder / CHECKPOINTS / str(each), ANOTHER_STEP, below=(ITEM,))
    step = max(weights)
    named = weights if config.checkpoints is not None else None
    if about["method"] == "full":
        arrays = _mean_of(folder / CHECKPOINTS, weights)
        values = {value.name: value for leaf in table for value in _values(spec, leaf, arrays)}
        _refuse_others(arrays, {leaf.path for leaf in table})
        return Adapter(
            "full",
            "tapeout",
            digest_of(about, arrays),
            step,
            named,
            base_digest=about.get("base_digest"),
            values=values,
            updated=lambda leaf, base: np.asarray(arrays[leaf.path], np.float32),
            date=about.get("date"),
        )
    targets, scale = about["targets"], float(about["alpha"]) / int(about["rank"])
    wanted = [leaf for leaf in table if leaf.use.adaptable and leaf.target in targets]
    if unknown := sorted(set(targets) - {leaf.target for leaf in wanted}):
        raise UserError("the base has no such target", where=f"{METADATA}: targets: {unknown[0]}", fix=ANOTHER_MODEL)
    # An adapter that training went on from has ranks of its own, and may leave tensors alone.
    ranks = about.get("ranks") or {leaf.path: int(about["rank"]) for leaf in wanted}
    wanted, missing = [leaf for leaf in wanted if leaf.path in ranks], set(about.get("missing", ()))
    arrays = _side_by_side(folder / CHECKPOINTS, weights, wanted, ranks)
    wide = {path: rank * len(weights) for path, rank in ranks.items()}
    pairs = {pair.name: pair for leaf in wanted for pair in _pairs(spec, leaf, wide[leaf.path], scale, arrays)}
    pairs = {name: pair for name, pair in pairs.items() if name not in missing or pair.load()[1].any()}
    most = max(wide.values())
    return Adapter(
        "lora",
        "tapeout",
        digest_of(about, arrays),
        step,
        named,
        most,
        scale * most,
        about["base_digest"],
        pairs,
        updated=partial(_updated, arrays, scale),
        chosen_layers=bool(about.get("chosen_layers")),
        date=about.get("date"),
    )


def digest_of(about: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for key in sorted(arrays):
        total.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        total.update(np.ascontiguousarray(arrays[key]).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _mean_of(folder: Path, weights: Mapping[int, float]) -> dict[str, np.ndarray]:
    """The weighted sum of the checkpoints' parameters, in their own type."""
    if list(weights.values()) == [1.0]:
        return _restore(folder / str(max(weights)))
    total: dict[str, np.ndarray] = {}
    types: dict[str, np.dtype] = {}
    for step, weight in weights.items():
        for key, array in _restore(folder / str(step)).items():
            part = np.float32(weight) * array.astype(np.float32)
            types[key] = array.dtype
            total[key] = total[key] + part if key in total else part
    return {key: array.astype(types[key]) for key, array in total.items()}


def _side_by_side(
    folder: Path, weights: Mapping[int, float], wanted: list[Leaf], ranks: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """A and B of all checkpoints, joined along the rank: their product is the weighted sum of the updates, exactly."""
    parts: dict[str, list[np.ndarray]] = {}
    for step, weight in weights.items():
        arrays = _restore(folder / str(step))
        for leaf in wanted:
            shapes = lora_shapes(leaf, ranks[leaf.path])
            a, b = (_array(arrays, key, shape) for key, shape in zip(_keys(leaf), shapes, strict=True))
            halves = (a, b if weight == 1 else np.float32(weight) * b.astype(np.float32))
            for key, half in zip(_keys(leaf), halves, strict=True):
                parts.setdefault(key, []).append(half)
        _refuse_others(arrays, {key for leaf in wanted for key in _keys(leaf)})
    axes = {key: each.index(RANK) for leaf in wanted for key, each in zip(_keys(leaf), lora_axes(leaf), strict=True)}
    return {
        key: halves[0] if len(halves) == 1 else np.concatenate([half.astype(np.float32) for half in halves], axes[key])
        for key, halves in parts.items()
    }


def _updated(arrays: Mapping[str, np.ndarray], scale: float, leaf: Leaf, base: np.ndarray) -> np.ndarray:
    """The definition itself, in our axes: it shares no code with the pairs that are merged."""
    a, b = (arrays.get(key) for key in _keys(leaf))
    if a is None or b is None:
        return base
    of_a, of_b = ("".join(axes) for axes in lora_axes(leaf))
    formula = f"{of_a},{of_b}->{''.join(leaf.letters)}"
    delta = np.einsum(formula, a.astype(np.float32), b.astype(np.float32), optimize=True)
    return base + np.float32(scale) * delta


def _metadata(path: Path) -> dict[str, Any]:
    try:
        about = read_json(path)
        check_seal(about, path, "run the train stage again")
        if lacking := [key for key in KEYS[about["method"]] if key not in about]:
            raise ValueError(f"no {lacking[0]}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"not an adapter's metadata ({error})", where=str(path), fix="run the train stage again"
        ) from error
    return about


def _pick(folder: Path, config: ConvertConfig) -> dict[int, float]:
    """Steps to convert, oldest first, with their weights."""
    steps = sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []
    if not steps:
        raise UserError("there is no finished checkpoint", where=str(folder), fix="run the train stage to its end")
    chosen = steps[-1:] if config.step is None else [config.step]
    if isinstance(config.checkpoints, list):
        chosen = config.checkpoints
    elif config.checkpoints is not None:
        count = int(config.checkpoints.split()[1])
        chosen = steps[-count:]
        if len(chosen) < count:
            what = f"there are {len(steps)} checkpoints, not {count}"
            raise UserError(what, where=str(folder), fix="ask for fewer, or train with a larger train.keep_checkpoints")
    for step in chosen:
        if step not in steps:
            there = ", ".join(map(str, steps))
            raise UserError(f"there is no checkpoint of step {step}", where=str(folder), fix=f"choose one of: {there}")
    weights = config.weights or [1 / len(chosen)] * len(chosen)
    return dict(zip(chosen, weights, strict=True))


def _restore(folder: Path) -> dict[str, np.ndarray]:
    # Reading needs no accelerator, and Orbax asks JAX for its devices: a GPU's memory would be taken for nothing.
    jax.config.update("jax_platforms", "cpu")
    # Orbax warns of the items that were not asked for (optimizer state).
    logging.set_verbosity(logging.ERROR)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(trained=ocp.PyTreeCheckpointHandler())) as reader:
            return {key: _restore_one(reader, folder.absolute(), key) for key in _names(folder / ITEM)}
    except (
        Exception
    ) as error:  # Orbax and TensorStore raise many types for a damaged checkpoint, none of them their own.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the checkpoint is damaged or incomplete: {textwrap.shorten(reason, 160, placeholder='...')}",
            where=str(folder),
            fix=ANOTHER_STEP,
        ) from error


def _names(folder: Path) -> list[str]:
    # Orbax's own listing opens every array at once; when one of them is damaged, the others' callbacks print tracebacks
    # from their threads. Its metadata file names the same parameters.
    tree = read_json(folder / "_METADATA")["tree_metadata"].values()
    return [row["key_metadata"][0]["key"] for row in tree]


def _restore_one(reader: ocp.Checkpointer, folder: Path, key: str) -> np.ndarray:
    one = ocp.args.PyTreeRestore(
        item={key: 0}, restore_args={key: ocp.RestoreArgs(restore_type=np.ndarray)}, partial_restore=True
    )
    return reader.restore(folder, args=ocp.args.Composite(trained=one))[ITEM][key]


def _keys(leaf: Leaf) -> tuple[str, str]:
    return f"{leaf.path}.lora_a", f"{leaf.path}.lora_b"


def _array(arrays: Mapping[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in arrays:
        raise UserError("the checkpoint lacks this parameter", where=key, fix=ANOTHER_MODEL)
    if arrays[key].shape != shape:
        what = f"the checkpoint has shape {list(arrays[key].shape)}, the base needs {list(shape)}"
        raise UserError(what, where=key, fix=ANOTHER_MODEL)
    return arrays[key]


def _refuse_others(arrays: Mapping[str, np.ndarray], known: set[str]) -> None:
    if others := sorted(set(arrays) - known):
        raise UserError(
            "the checkpoint holds a parameter that has no place in the base", where=others[0], fix=ANOTHER_MODEL
        )


def _pairs(spec: DecoderSpec, leaf: Leaf, rank: int, scale: float, arrays: Mapping[str, np.ndarray]) -> list[Pair]:
    shapes = lora_shapes(leaf, rank)
    a, b = (_array(arrays, key, shape) for key, shape in zip(_keys(leaf), shapes, strict=True))
    return [
        Pair(name, site_of(spec, leaf, index), rank, scale, partial(_one_pair, leaf, index, a, b))
        for name, index in leaf.index()
    ]


def _one_pair(leaf: Leaf, index: tuple[int, ...], a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pair_a, pair_b = peft_pair(leaf, index, a, b)
    return pair_a.astype(np.float32), pair_b.astype(np.float32)


def _values(spec: DecoderSpec, leaf: Leaf, arrays: Mapping[str, np.ndarray]) -> list[Value]:
    array = _array(arrays, leaf.path, leaf.shape)
    return [
        Value(name, site_of(spec, leaf, index), leaf.hf_shape, partial(_one_tensor, leaf, name, index, array))
        for name, index in leaf.index()
    ]


def _one_tensor(leaf: Leaf, name: str, index: tuple[int, ...], array: np.ndarray) -> np.ndarray:
    """One HF tensor of a row, so that a stack is never laid out a second time as a whole."""
    at = dict(zip(leaf.stacked, index, strict=True))
    inner = [(letter, size) for letter, size in leaf.size.items() if letter not in at]
    one = dataclasses.replace(
        leaf, hf_names=(name,), our_axes=" ".join(x for x, _ in inner), shape=tuple(size for _, size in inner)
    )
    part = np.asarray(array[tuple(at.get(letter, slice(None)) for letter in leaf.letters)])
    return np.asarray(to_hf(one, part)[name])
