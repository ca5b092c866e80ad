"""What stage 3 merges, wherever it came from: one low-rank pair, or one new value, per Hugging Face tensor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from common.errors import UserError
from common.safetensors import Shard, Weights
from models.adapters.peft import norm_of_product
from models.leaf import LAYER, Leaf
from models.spec import DecoderSpec

METADATA = "adapter.json"
ANOTHER_MODEL = "the adapter belongs to another model: name the base that it was trained on"


@dataclass(frozen=True)
class Site:
    """Where a tensor stands in the model: the recipe's name of the target, and the layer (None: outside the layers)."""

    target: str
    layer: int | None


@dataclass(frozen=True)
class Pair:
    """delta = scale * B @ A, for the HF tensor `name` of shape [out, in]."""

    name: str
    site: Site
    rank: int
    scale: float
    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    """A [rank, in] and B [out, rank], float32."""


@dataclass(frozen=True)
class Value:
    """A trained tensor in HF's own layout."""

    name: str
    site: Site
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Adapter:
    method: str
    """`lora` (pairs) or `full` (values)."""
    source: str
    """`tapeout` or `peft`."""
    digest: str = ""
    """sha256 over what was read: the same adapter gives the same."""
    step: int | None = None
    """The (last) checkpoint."""
    weights: Mapping[int, float] | None = None
    """Factors of the checkpoints that were combined."""
    rank: int | None = None
    alpha: float | None = None
    base_digest: str | None = None
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    updated: Callable[[Leaf, np.ndarray], np.ndarray] | None = None
    """A row's base weights (float32, our axes) with the adapter's update, formed without the pairs above."""
    chosen_layers: bool = False
    """Its configuration says that some layers are left out on purpose."""
    untrained: Mapping[str, Site] = field(default_factory=dict)
    """Tensors whose update in a PEFT adapter is zero: nothing is merged there."""
    date: str | None = None
    """The day that the chat template printed in the data it was trained on."""
    keys: tuple[Shard, Mapping[str, str]] | None = None
    """A PEFT adapter's file, and those of its keys that PEFT itself would write in another way, with that way."""


def sites(spec: DecoderSpec, table: list[Leaf]) -> dict[str, Site]:
    """Every HF tensor of the table with its site."""
    return {name: site_of(spec, leaf, index) for leaf in table for name, index in leaf.index()}


def site_of(spec: DecoderSpec, leaf: Leaf, index: tuple[int, ...]) -> Site:
    at = dict(zip(leaf.stacked, index, strict=True))
    if LAYER not in at:
        return Site(leaf.target, None)
    return Site(leaf.target, spec.numbers(leaf.path.rsplit(".", 1)[0])[at[LAYER]])


def check_pairs(adapter: Adapter, base: Weights) -> dict[str, float]:
    """Norm of every pair's delta. Raises UserError, before anything is written, for a pair that does not fit the base,
    that is not finite, or that was never trained (its delta is zero)."""
    norms = {}
    for name, pair in adapter.pairs.items():
        if name not in base.where:
            raise UserError("the base has no such tensor", where=name, fix=ANOTHER_MODEL)
        a, b = pair.load()
        shape = base.where[name][1].shape
        if (b.shape[0], a.shape[1]) != shape:
            raise UserError(
                f"the adapter's update has shape {[b.shape[0], a.shape[1]]}, the base's tensor {list(shape)}",
                where=name,
                fix=ANOTHER_MODEL,
            )
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise UserError(
                "the adapter holds NaN or infinity", where=name, fix="convert an earlier step, or lower learning_rate"
            )
        norms[name] = abs(pair.scale) * norm_of_product(b, a)
    untrained = [name for name, norm in norms.items() if norm == 0.0]
    if untrained:
        more = f" (and {len(untrained) - 1} more)" if len(untrained) > 1 else ""
        raise UserError(
            "a target was never trained: its update is zero",
            where=untrained[0] + more,
            fix="train for more steps, or leave this target out of train.lora.targets",
        )
    return norms
