"""LoRA over the stacked decoder: qwix adapts one layer of each kind, the table says the shapes of its stacks.

qwix cannot be applied to stacked layers, and would give every layer the same A; so it runs on an abstract layer, and
the stacks are filled here, each row from a key of its own.
"""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from jax.sharding import Mesh

from common.errors import UserError
from models.attention import attend, visible
from models.decoder import Decoder
from models.families import rows
from models.layer import KV, Layer
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
    wanted = adapted_rows(decoder, targets)
    key = jax.random.key(seed)
    values: dict[str, tuple[jax.Array, jax.Array]] = {}
    for i, leaf in enumerate(wanted):
        a_shape, b_shape = lora_shapes(leaf, rank)
        limit = math.sqrt(6.0 / math.prod(leaf.size[x] for x in contracted(leaf)))
        a = jax.random.uniform(jax.random.fold_in(key, i), a_shape, jnp.float32, -limit, limit)
        a_place, b_place = lora_places(mesh, leaf, a_shape, b_shape)
        b = jnp.zeros(b_shape, jnp.float32)
        values[leaf.path] = (jax.device_put(a, a_place), jax.device_put(b, b_place))
    pattern = "|".join(sorted(set(targets)))
    provider = qwix.LoraProvider(module_path=f"({pattern})", rank=rank, alpha=alpha)
    for kind, stack in decoder.stacks.items():
        own = {path.split(".")[1]: pair for path, pair in values.items() if path.startswith(f"{kind}.")}
        decoder.stacks[kind] = _adapted(stack, provider, own, decoder.spec.extra.dim if decoder.spec.extra else 0)
    return decoder


def _adapted(
    stack: Layer, provider: qwix.LoraProvider, own: dict[str, tuple[jax.Array, jax.Array]], extra_dim: int
) -> Layer:
    graph, state = nnx.split(stack)

    def one_layer() -> Layer:
        layer = nnx.merge(graph, jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), state))
        spec, dtype = layer.spec, layer.input_norm[...].dtype
        positions = jnp.zeros((1, 1), jnp.int32)
        mask = visible(positions, positions, None)
        x = jnp.zeros((1, 1, layer.input_norm[...].shape[-1]), dtype)
        lent = jnp.zeros((1, 1, spec.kv_heads, spec.head_dim), dtype)
        extra = jnp.zeros((1, 1, extra_dim), dtype) if extra_dim else None

        def look(q: jax.Array, own: KV | None) -> jax.Array:
            return attend(q, *(own or (lent, lent)), mask, spec)

        adapted = qwix.apply_lora_to_model(layer, provider, x, positions, look, extra, rngs=nnx.Rngs(0))
        assert isinstance(adapted, Layer)
        return adapted

    adapted = nnx.eval_shape(one_layer)
    for name, (a, b) in own.items():
        projection = getattr(adapted, name)
        for suffix, value in (("a", a), ("b", b)):
            expected = getattr(projection, f"w_lora_{suffix}").shape
            assert expected == value.shape[1:], (name, expected, value.shape)
    _fill(adapted, stack, own)
    return adapted


def _fill(adapted: Layer, stack: Layer, own: dict[str, tuple[jax.Array, jax.Array]]) -> None:
    """Put the stacked arrays where the abstract layer has its single ones."""
    for path, variable in nnx.state(stack).flat_state():
        target = adapted
        for part in path[:-1]:
            target = getattr(target, str(part))
        getattr(target, str(path[-1])).set_value(variable.get_value())
    for name, (a, b) in own.items():
        getattr(adapted, name).w_lora_a.set_value(a)
        getattr(adapted, name).w_lora_b.set_value(b)
