"""How quantized weights lie in memory and in files, without JAX: which rows, in which mode, of which shapes.

In a file, the codes have the tensor's own name and the scales that name with "_scale" (docs/quantization.md).
"""

import math
from collections.abc import Mapping
from math import gcd
from typing import Any, Literal, get_args

from common.errors import UserError
from models.leaf import Leaf, contracted

Mode = Literal["int8", "int4", "nf4"]
PACKED: dict[Mode, int] = {"int8": 1, "int4": 2, "nf4": 2}
"""Codes in a byte."""
METHOD, VERSION = "tapeout", 1
SCALE = "_scale"
"""After a tensor's name: the tensor of its scales."""
GROUP = 32
SMALLEST_GROUP = 8
"""Rows whose last axis has no larger group stay as they are."""


def mode_of(leaf: Leaf, mode: Mode) -> Mode | None:
    """How a row is held: products and experts of layers as asked, tables of tokens in int8, all else in full."""
    if leaf.use.tokens:
        return "int8"
    if not leaf.use.quantizable:
        return None
    return mode if mode == "int8" or group_of(leaf) >= SMALLEST_GROUP else None


def group_of(leaf: Leaf) -> int:
    return gcd(GROUP, leaf.shape[-1])


def shapes(leaf: Leaf, mode: Mode) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the row's codes and of its scales."""
    codes = (*leaf.shape[:-1], leaf.shape[-1] // PACKED[mode])
    if mode != "int8":
        return codes, (*leaf.shape[:-1], leaf.shape[-1] // group_of(leaf))
    return codes, tuple(1 if x in one_scale(leaf) else size for x, size in leaf.size.items())


def one_scale(leaf: Leaf) -> tuple[str, ...]:
    """Letters over which int8 has one scale."""
    return leaf.letters[-1:] if leaf.use.tokens else contracted(leaf)


def stored_shapes(leaf: Leaf, mode: Mode) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the codes and the scales that stand for one HF tensor in a file."""
    count = math.prod(leaf.size[x] for x in leaf.stacked)
    codes, scale = (math.prod(shape) // count for shape in shapes(leaf, mode))
    out = leaf.hf_shape[:-1]
    return (*out, codes // math.prod(out)), (*out, scale // math.prod(out))


def stored_mode(config: Mapping[str, Any], folder: str) -> Mode | None:
    """What config.json of `folder` says of the weights: None where they are in full.

    Raises UserError for another tool's quantization.
    """
    about = config.get("quantization_config")
    if about is None:
        return None
    ours = {"quant_method": METHOD, "version": VERSION, "group_size": GROUP}
    if isinstance(about, dict) and about.get("weights") in get_args(Mode) and ours.items() <= about.items():
        return about["weights"]
    raise UserError(
        "weights quantized in this way cannot be loaded",
        where=f"{folder}/config.json: quantization_config",
        fix="give the full weights, or an export of tapeout convert",
    )


def about_mode(mode: Mode) -> dict[str, Any]:
    """config.json's `quantization_config` of an export."""
    return {"quant_method": METHOD, "version": VERSION, "weights": mode, "group_size": GROUP}


def mode_to_load(stored: Mode | None, asked: Mode | None) -> tuple[Mode | None, bool]:
    """The mode to hold weights in that are `stored` so, and whether it is that one already. Raises UserError where they
    differ."""
    if stored is not None and asked not in (None, stored):
        raise UserError(
            f"the model's weights are {stored} already",
            where=f"weights: {asked}",
            fix="leave it out, or give the full weights",
        )
    return stored or asked, stored is not None
