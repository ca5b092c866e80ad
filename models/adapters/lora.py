"""LoRA over the stacked decoder: the table says the shapes of A and B, each row is filled from a key of its own.

The products are `Projection`'s own, not qwix's: qwix adapts no stacked layers, and its einsum over the weight's axes
made the gradient of an adapted layer 2.5 times slower on CPU than plain products of matrices.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from common.errors import UserError
from models.adapters.peft import PeftAdapter, is_zero, joined
from models.decoder import Decoder
from models.families import rows
from models.layer import Projection
from models.leaf import Leaf, contracted, lora_shapes, target_like
from models.mesh import lora_shardings


def _products(decoder: Decoder) -> list[Leaf]:
    """The rows of layers that LoRA can adapt."""
    return [leaf for leaf in rows(decoder.spec, decoder.stacked) if leaf.use.product and leaf.use.adaptable]


def known_products(decoder: Decoder) -> set[str]:
    """The HF tensors that LoRA can adapt."""
    return {name for leaf in _products(decoder) for name in leaf.hf_names}


def adapted_rows(decoder: Decoder, targets: Iterable[str]) -> list[Leaf]:
    """The rows of layers that LoRA adapts. Raises UserError for a target that no layer has."""
    products = _products(decoder)
    names = {leaf.target for leaf in products}
    if unknown := sorted(set(targets) - names):
        near = target_like(products, unknown[0])
        fix = f"write {near}; " if near else ""
        raise UserError(
            f"this model has no product {unknown[0]!r}", where="train.lora.targets", fix=f"{fix}known: {sorted(names)}"
        )
    return [leaf for leaf in products if leaf.target in set(targets)]


def add_lora(
    decoder: Decoder, mesh: Mesh | None, rank: int, alpha: float, targets: Iterable[str], seed: int
) -> Decoder:
    """The decoder with LoRA on `targets` of every layer: A uniform (He), B zero, both float32, placed on `mesh`."""
    key = jax.random.key(seed)
    for i, leaf in enumerate(adapted_rows(decoder, targets)):
        a_shape, b_shape = lora_shapes(leaf, rank)
        limit = math.sqrt(6.0 / math.prod(leaf.size[x] for x in contracted(leaf)))
        a = jax.random.uniform(jax.random.fold_in(key, i), a_shape, jnp.float32, -limit, limit)
        _adapt(decoder, leaf, mesh, a, jnp.zeros(b_shape, jnp.float32), alpha / rank)
    return decoder


def add_lora_shapes(decoder: Decoder, mesh: Mesh, rank: int, alpha: float, targets: Iterable[str]) -> Decoder:
    """`add_lora` for a decoder of shapes."""
    for leaf in adapted_rows(decoder, targets):
        sizes = lora_shapes(leaf, rank)
        a, b = (
            jax.ShapeDtypeStruct(size, jnp.float32, sharding=sharding)
            for size, sharding in zip(sizes, lora_shardings(mesh, leaf, *sizes), strict=True)
        )
        _projection(decoder, leaf).adapt(a, b, alpha / rank)
    return decoder


def _projection(decoder: Decoder, leaf: Leaf) -> Projection:
    where, target = leaf.path.rsplit(".", 1)
    layer = decoder.stacks[where] if decoder.stacked else decoder.layers[int(where.rsplit(".", 1)[1])]
    return getattr(layer, target)


def _adapt(decoder: Decoder, leaf: Leaf, mesh: Mesh | None, a: Any, b: Any, scale: float) -> None:
    shardings = (None, None) if mesh is None else lora_shardings(mesh, leaf, a.shape, b.shape)
    placed_a, placed_b = (jax.device_put(half, place) for half, place in zip((a, b), shardings, strict=True))
    _projection(decoder, leaf).adapt(placed_a, placed_b, scale)


@dataclass(frozen=True)
class Attached:
    """An adapter as a decoder carries it: what `adapter.json` says of it, so that it can be converted."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    ranks: dict[str, int]
    """By row: k and v (gate and up) that come with an A each take the ranks of both."""
    missing: tuple[str, ...]
    """Tensors of these targets that the adapter leaves alone."""
    chosen_layers: bool
    """Its configuration says so."""
    untrained: tuple[str, ...]
    """What the adapter names, the base does not have, and its update would not change."""


def attach(decoder: Decoder, mesh: Mesh | None, adapter: PeftAdapter, dtype: str) -> Attached:
    """Put a PEFT adapter beside the weights of its base. Raises UserError for a tensor that the base does not have."""
    table = _products(decoder)
    unknown = sorted(set(adapter.pairs) - known_products(decoder))
    for name in unknown:
        if not is_zero(adapter.pairs[name], name):
            fix = "name the base that the adapter was trained on"
            raise UserError("the base has no such product", where=name, fix=fix)
    if len(unknown) == len(adapter.pairs):
        raise UserError("no update of the adapter is of this base", where=unknown[0], fix="name another base")
    ranks: dict[str, int] = {}
    for leaf in table:
        if (row := joined(leaf, adapter)) is None:
            continue
        a, b = (np.asarray(half, jnp.dtype(dtype)) for half in (row.a, row.b))
        _adapt(decoder, leaf, mesh, a, b, adapter.scale)
        ranks[leaf.path] = row.rank
    targets = {leaf.target for leaf in table if leaf.path in ranks}
    names = {name for leaf in table if leaf.target in targets for name in leaf.hf_names}
    return Attached(
        adapter.rank,
        adapter.scale * adapter.rank,
        tuple(sorted(targets)),
        ranks,
        tuple(sorted(names - set(adapter.pairs))),
        adapter.chosen_layers,
        tuple(unknown),
    )
