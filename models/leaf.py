"""The table's algebra: one `Leaf` row says how a parameter of ours and Hugging Face tensors correspond.

`our_axes` names our axes by letters ("l s d k h"), `hf_axes` the axes of one HF tensor as groups ("(k h) d").
Letters of ours that HF lacks (`l` layers, `s` keys and values) stack several HF tensors. A torch Linear stores
(out, in), so the last group is what a product contracts. Load, save, LoRA shapes, merge and PEFT pairs follow.
"""

import difflib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.errors import UserError

LAYER = "l"
RANK = "r"
TOKENS = ("b", "t")
"""Batch and position, which activations have before all else; with l and r, letters that no row may use otherwise."""


@dataclass(frozen=True)
class Use:
    """What is done with a parameter, beyond being loaded and saved."""

    product: bool = False
    """A layer multiplies activations [b t ...] with it; the equation follows from its letters."""
    adaptable: bool = False
    """An adapter may be merged into it; beside it, while training or serving, where it is a layer's product too."""
    quantizable: bool = False
    """Its codes may be int8, int4 or nf4."""
    tokens: bool = False
    """A table with a row for every token: looked up or multiplied as a whole, int8 at the least."""
    float32_out: bool = False
    """The product's result joins the residual stream or decides on experts: it is not rounded."""
    sharding: tuple[tuple[str, str | None], ...] = ()
    """Letters whose mesh axis differs from the rule of models/mesh.py."""


PRODUCT = Use(product=True, adaptable=True, quantizable=True)


@dataclass(frozen=True)
class Row:
    """What all layers have of one parameter, or one layer: the one place that says all of it."""

    name: str
    hf_names: tuple[str, ...]
    """After the layer's own prefix."""
    our_axes: str
    hf_axes: str
    use: Use = Use()


@dataclass(frozen=True)
class Leaf:
    """A row of the table, spelled out for its layers."""

    path: str
    hf_names: tuple[str, ...]
    """HF tensors, in row-major order of the stacking letters."""
    our_axes: str
    hf_axes: str
    shape: tuple[int, ...]
    """Sizes of our axes."""
    use: Use = Use()

    @cached_property
    def letters(self) -> tuple[str, ...]:
        return tuple(self.our_axes.split())

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """HF axes as tuples of letters; `()` is an axis of size 1."""
        return tuple(tuple(part.strip("()").split()) for part in re.findall(r"\([^)]*\)|\w+", self.hf_axes))

    @cached_property
    def size(self) -> dict[str, int]:
        return dict(zip(self.letters, self.shape, strict=True))

    @cached_property
    def stacked(self) -> tuple[str, ...]:
        """Letters that number HF tensors."""
        inside = {letter for group in self.groups for letter in group}
        return tuple(letter for letter in self.letters if letter not in inside)

    @cached_property
    def hf_shape(self) -> tuple[int, ...]:
        return tuple(math.prod(self.size[x] for x in group) for group in self.groups)

    @property
    def in_hf_order(self) -> bool:
        """Whether an HF tensor's bytes are ours as they are."""
        flat = tuple(x for group in self.groups for x in group)
        return flat == tuple(x for x in self.letters if x not in self.stacked)

    @property
    def target(self) -> str:
        """The last part of the path: what a recipe's `targets` name."""
        return self.path.rsplit(".", 1)[-1]

    def index(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every HF tensor with its index over the stacking letters."""
        return zip(self.hf_names, itertools.product(*(range(self.size[x]) for x in self.stacked)), strict=True)


def _inner(leaf: Leaf) -> tuple[str, ...]:
    return tuple(x for x in leaf.letters if x not in leaf.stacked)


def _slot(leaf: Leaf, index: tuple[int, ...]) -> tuple[int | slice, ...]:
    at = dict(zip(leaf.stacked, index, strict=True))
    return tuple(at.get(x, slice(None)) for x in leaf.letters)


def in_our_order(leaf: Leaf, name: str, tensor: np.ndarray) -> np.ndarray:
    """One HF tensor as a view with our axes. Raises UserError where its shape disagrees."""
    if tensor.shape != leaf.hf_shape:
        raise UserError(
            f"tensor has shape {list(tensor.shape)}, the configuration says {list(leaf.hf_shape)}",
            where=name,
            fix="the weights and config.json belong to different models",
        )
    flat = [x for group in leaf.groups for x in group]
    return tensor.reshape([leaf.size[x] for x in flat]).transpose([flat.index(x) for x in _inner(leaf)])


def from_hf(leaf: Leaf, read: Callable[[str], np.ndarray]) -> np.ndarray:
    """Our array from HF tensors, read one at a time. Raises UserError where a tensor's shape disagrees."""
    out: np.ndarray | None = None
    for name, index in leaf.index():
        tensor = in_our_order(leaf, name, read(name))
        if out is None:
            out = np.empty(leaf.shape, tensor.dtype)
        out[_slot(leaf, index)] = tensor
    assert out is not None, leaf
    return out


def to_hf(leaf: Leaf, array: np.ndarray) -> dict[str, np.ndarray]:
    """HF tensors from our array: the exact inverse of `from_hf`."""
    order = [_inner(leaf).index(x) for group in leaf.groups for x in group]
    return {
        name: np.ascontiguousarray(array[_slot(leaf, index)].transpose(order)).reshape(leaf.hf_shape)
        for name, index in leaf.index()
    }


def contracted(leaf: Leaf) -> tuple[str, ...]:
    """Letters that the product sums over, in our order."""
    return tuple(x for x in leaf.letters if x in leaf.groups[-1])


def equation(leaf: Leaf) -> str:
    """The product of activations with one layer's weight: `btd,nhd->btnh` for a row with axes "n h d"."""
    inner = "".join(contracted(leaf))
    letters = "".join(x for x in leaf.letters if x != LAYER)
    outer = "".join(x for x in letters if x not in inner)
    tokens = "".join(TOKENS)
    return f"{tokens}{inner},{letters}->{tokens}{outer}"


def target_like(table: Iterable[Leaf], word: str) -> str | None:
    """The target that Hugging Face's name for a product is part of (`q_proj` of `q`), or the nearest in spelling."""
    products = [leaf for leaf in table if leaf.use.product and leaf.use.adaptable]
    word = word.rsplit(".", 1)[-1]
    for leaf in products:
        if any(word == name.removesuffix(".weight").rsplit(".", 1)[-1] for name in leaf.hf_names):
            return leaf.target
    near = difflib.get_close_matches(word, [leaf.target for leaf in products], 1)
    return near[0] if near else None


def lora_axes(leaf: Leaf) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Axes of A (layer, contracted, r) and of B (layer, r, the rest)."""
    layer = tuple(x for x in leaf.letters if x == LAYER)
    rest = tuple(x for x in leaf.letters if x != LAYER and x not in contracted(leaf))
    return (*layer, *contracted(leaf), RANK), (*layer, RANK, *rest)


def lora_shapes(leaf: Leaf, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    size = {**leaf.size, RANK: rank}
    a, b = lora_axes(leaf)
    return tuple(size[x] for x in a), tuple(size[x] for x in b)


def peft_pair(leaf: Leaf, index: tuple[int, ...], a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PEFT's (lora_A [r, in], lora_B [out, r]) of one HF tensor; A is repeated where tensors share it."""
    at = dict(zip(leaf.stacked, index, strict=True))
    a_axes, b_axes = lora_axes(leaf)
    a = a[tuple(at.get(x, slice(None)) for x in a_axes)]
    b = b[tuple(at.get(x, slice(None)) for x in b_axes)]
    a_left = [x for x in a_axes if x not in at]
    b_left = [x for x in b_axes if x not in at]
    out_group, in_group = leaf.groups
    a = a.transpose([a_left.index(x) for x in (RANK, *in_group)]).reshape(-1, leaf.hf_shape[1])
    b = b.transpose([b_left.index(x) for x in (*out_group, RANK)]).reshape(leaf.hf_shape[0], -1)
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def lora_pair(leaf: Leaf, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A [contracted.., r] and B [r, rest..] with our axes from PEFT's (lora_A [r, in], lora_B [out, r]) of one HF
    tensor: the inverse of `peft_pair`."""
    out_group, in_group = leaf.groups
    rest = [x for x in _inner(leaf) if x in out_group]
    a = a.reshape(-1, *(leaf.size[x] for x in in_group))
    b = b.reshape(*(leaf.size[x] for x in out_group), -1)
    a = a.transpose([*(1 + in_group.index(x) for x in contracted(leaf)), 0])
    return a, b.transpose([len(out_group), *(out_group.index(x) for x in rest)])
