"""LoRA over the stacked decoder: the table says the shapes of A and B, each row is filled from a key of its own.

The products are `Projection`'s own, not qwix's: qwix adapts no stacked layers, and its einsum over the weight's axes
made the gradient of an adapted layer 2.5 times slower on CPU than plain products of matrices.
"""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from common.errors import UserError
from models.decoder import Decoder
from models.families import rows
from models.layer import Projection
from models.leaf import Leaf, contracted, lora_shapes
from models.mesh import lora_places


def adapted_rows(decoder: Decoder, targets: Iterable[str]) -> list[Leaf]:
    """The rows of layers that LoRA adapts. Raises UserError for a target that no layer has."""
    products = [leaf for leaf in rows(decoder.spec, stacked=True) if leaf.is_product and "." in leaf.path]
    names = {leaf.target for leaf in products}
    if unknown := sorted(set(targets) - names):
        raise UserError(
            f"this model has no product {unknown[0]!r}", where="train.lora.targets", fix=f"known: {sorted(names)}"
        )
    return [leaf for leaf in products if leaf.target in set(targets)]


def add_lora(decoder: Decoder, mesh: Mesh, rank: int, alpha: float, targets: Iterable[str], seed: int) -> Decoder:
    """The decoder with LoRA on `targets` of every layer: A uniform (He), B zero, both float32, placed on `mesh`."""
    key = jax.random.key(seed)
    for i, leaf in enumerate(adapted_rows(decoder, targets)):
        a_shape, b_shape = lora_shapes(leaf, rank)
        limit = math.sqrt(6.0 / math.prod(leaf.size[x] for x in contracted(leaf)))
        a = jax.random.uniform(jax.random.fold_in(key, i), a_shape, jnp.float32, -limit, limit)
        a_place, b_place = lora_places(mesh, leaf, a_shape, b_shape)
        kind = leaf.path.split(".")[0]
        projection: Projection = getattr(decoder.stacks[kind], leaf.target)
        b = jnp.zeros(b_shape, jnp.float32)
        projection.adapt(jax.device_put(a, a_place), jax.device_put(b, b_place), alpha / rank)
    return decoder
