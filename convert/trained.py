"""Read what the train stage wrote: adapter.json and the Orbax checkpoint of one step, as numpy on the CPU."""

import dataclasses
import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from common.errors import UserError
from common.files import read_json
from convert.adapter import ANOTHER_MODEL, Adapter, Pair, Value, place_of
from models.leaf import Leaf, lora_shapes, peft_pair, to_hf
from models.spec import DecoderSpec

METADATA = "adapter.json"
CHECKPOINTS = "checkpoints"
ITEM = "trained"
KEYS = {"lora": ("base_digest", "rank", "alpha", "targets"), "full": ()}


def read_trained(folder: Path, step: int | None, spec: DecoderSpec, table: list[Leaf]) -> Adapter:
    """`table`: the stacked rows of `spec`. Raises UserError for anything absent, damaged or of another model."""
    about = _metadata(folder / METADATA)
    step = _pick(folder / CHECKPOINTS, step)
    arrays = _restore(folder / CHECKPOINTS / str(step))
    if about["method"] == "full":
        values = {value.name: value for leaf in table for value in _values(spec, leaf, arrays)}
        _refuse_others(arrays, {leaf.path for leaf in table})
        return Adapter("full", "tapeout", step, base_digest=about.get("base_digest"), values=values)
    rank, alpha, targets = int(about["rank"]), float(about["alpha"]), about["targets"]
    wanted = [leaf for leaf in table if leaf.is_product and leaf.target in targets]
    if unknown := sorted(set(targets) - {leaf.target for leaf in wanted}):
        raise UserError("the base has no such target", where=f"{METADATA}: targets: {unknown[0]}", fix=ANOTHER_MODEL)
    pairs = {pair.name: pair for leaf in wanted for pair in _pairs(spec, leaf, rank, alpha / rank, arrays)}
    _refuse_others(arrays, {key for leaf in wanted for key in _keys(leaf)})
    return Adapter("lora", "tapeout", step, rank, alpha, about["base_digest"], pairs)


def _metadata(path: Path) -> dict[str, Any]:
    try:
        about = read_json(path)
        if lacking := [key for key in KEYS[about["method"]] if key not in about]:
            raise ValueError(f"no {lacking[0]}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"not an adapter's metadata ({error})", where=str(path), fix="run the train stage again"
        ) from error
    return about


def _pick(folder: Path, step: int | None) -> int:
    steps = sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []
    if not steps:
        raise UserError("there is no finished checkpoint", where=str(folder), fix="run the train stage to its end")
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(f"there is no checkpoint of step {step}", where=str(folder), fix=f"choose one of: {there}")
    return steps[-1] if step is None else step


def _restore(folder: Path) -> dict[str, np.ndarray]:
    # Reading needs no accelerator, and Orbax asks JAX for its devices: a GPU's memory would be taken for nothing.
    jax.config.update("jax_platforms", "cpu")
    # Orbax warns of the items that were not asked for (optimizer state).
    logging.set_verbosity(logging.ERROR)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(trained=ocp.PyTreeCheckpointHandler())) as reader:
            return {key: _restore_one(reader, folder, key) for key in _names(folder / ITEM)}
    except (
        Exception
    ) as error:  # Orbax and TensorStore raise many types for a damaged checkpoint, none of them their own.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the checkpoint is damaged or incomplete: {textwrap.shorten(reason, 160, placeholder='...')}",
            where=str(folder),
            fix="choose another step with convert.step, or run the train stage again",
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
        Pair(name, place_of(spec, leaf, index), rank, scale, partial(_one_pair, leaf, index, a, b))
        for name, index in leaf.index()
    ]


def _one_pair(leaf: Leaf, index: tuple[int, ...], a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pair_a, pair_b = peft_pair(leaf, index, a, b)
    return pair_a.astype(np.float32), pair_b.astype(np.float32)


def _values(spec: DecoderSpec, leaf: Leaf, arrays: Mapping[str, np.ndarray]) -> list[Value]:
    array = _array(arrays, leaf.path, leaf.shape)
    return [
        Value(name, place_of(spec, leaf, index), leaf.hf_shape, partial(_one_tensor, leaf, name, index, array))
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
