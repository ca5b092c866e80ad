"""The cache of all slots and decode steps over it, in blocks of as many positions as one dispatch decodes.

Keys and values lie as [b k s h]: with one query per row, scores and weighted sums are a product for each head (on CPU
ten times faster than over [b s k h]), and a position is a row of it. Within a dispatch the cache is only read: new keys
and values collect in a block [b k c h] at the same index for every row, which `flush` writes at the end (XLA's scatter,
once a step, took longer than attention itself). A dispatch starts a block for every row: a row's sums are always taken
in the same order, so its logits do not depend on its neighbours.

Position p of a row stands in column (p + shift) % s, where the shift puts the start of its blocks on multiples of c.
A sliding layer holds a ring of its window. Layers that borrow keys and values have no place here: they read their
lender's.
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from models.attention.exact import weigh
from models.decoder import Decoder
from models.layer import KV
from models.mesh import sharding_of
from models.spec import LayerSpec

Layers = tuple[KV, ...]
"""Keys and values of every layer that has its own."""


def empty_cache(decoder: Decoder, slots: int, length: int, block: int) -> Layers:
    """Zeros for `slots` sequences of at most `length` positions."""

    def columns(window: int | None) -> int:
        return -(-min(length + block - 1, window or length + block) // block) * block

    return _zeros(decoder, slots, [columns(spec.window) for spec in _owners(decoder)])


def empty_block(decoder: Decoder, slots: int, block: int) -> Layers:
    """Room for what one dispatch adds."""
    return _zeros(decoder, slots, [block] * len(_owners(decoder)))


def _owners(decoder: Decoder) -> list[LayerSpec]:
    return [spec for spec in decoder.spec.layers if spec.shared_kv is None]


def places(decoder: Decoder, axes: tuple[str, str]) -> tuple[tuple[NamedSharding, NamedSharding], ...] | None:
    """Where keys and values with these axes lie, by layer: heads over tp; None on one device."""
    mesh = decoder.attention.mesh
    if mesh is None:
        return None

    def of(spec: LayerSpec, letters: str) -> NamedSharding:
        sizes = {"k": spec.kv_heads}
        return sharding_of(mesh, letters, tuple(sizes.get(letter, 1) for letter in letters))

    return tuple((of(spec, axes[0]), of(spec, axes[1])) for spec in _owners(decoder))


def _zeros(decoder: Decoder, slots: int, columns: list[int]) -> Layers:
    dtype = decoder.dtype
    return tuple(
        (
            jnp.zeros((slots, spec.kv_heads, s, spec.head_dim), dtype),
            jnp.zeros((slots, spec.kv_heads, s, spec.head_dim), dtype),
        )
        for spec, s in zip(_owners(decoder), columns, strict=True)
    )


def _first_column(start: jax.Array, block: int, s: int) -> jax.Array:
    """Where the block that begins at position `start` stands: start rounded up to a block, in a ring of s."""
    return (start + -start % block) % s


def _held(start: jax.Array, block: int, s: int) -> jax.Array:
    """The position in each column [... s] when those before `start` are written; negative where there is none."""
    start = start[..., None]
    columns = jnp.expand_dims(jnp.arange(s), range(start.ndim - 1))
    return start - 1 - (_first_column(start, block, s) - 1 - columns) % s


def place(cache: Layers, kv: Layers, numbers: jax.Array, block: int) -> Layers:
    """Write a prefilled prompt, keys and values [1 t k h] per layer; `numbers` are the slot and the prompt's length."""
    slot, length = numbers[0], numbers[1]

    def layer(cached: KV, fresh: KV) -> KV:
        held = _held(length, block, cached[0].shape[2])
        k, v = (jnp.take(x, jnp.clip(held, 0, x.shape[1] - 1), axis=1).astype(cached[0].dtype) for x in fresh)
        at = (slot, 0, 0, 0)
        keys = jax.lax.dynamic_update_slice(cached[0], k.transpose(0, 2, 1, 3), at)
        return keys, jax.lax.dynamic_update_slice(cached[1], v.transpose(0, 2, 1, 3), at)

    return tuple(layer(cached, fresh) for cached, fresh in zip(cache, kv, strict=True))


def decode(
    decoder: Decoder,
    tokens: jax.Array,
    positions: jax.Array,
    cache: Layers,
    new: Layers,
    start: jax.Array,
    i: jax.Array,
) -> tuple[jax.Array, Layers]:
    """Step i of a dispatch that began at positions `start` [b]: tokens, positions [b] -> logits [b v], the block with
    index i written."""
    block = new[0][0].shape[2]
    written = jnp.broadcast_to(jnp.arange(block) <= i, (*positions.shape, block))
    owners = [number for number, spec in enumerate(decoder.spec.layers) if spec.shared_kv is None]
    held = dict(zip(owners, zip(cache, new, strict=True), strict=True))

    def attend(number: int, q: jax.Array, own: KV | None) -> jax.Array:
        spec = decoder.spec.layers[number]
        owner = spec.kv_layer(number)
        past, fresh = held[owner]
        if own is not None:
            keys = jax.lax.dynamic_update_slice(fresh[0], own[0].transpose(0, 2, 1, 3), (0, 0, i, 0))
            values = jax.lax.dynamic_update_slice(fresh[1], own[1].transpose(0, 2, 1, 3), (0, 0, i, 0))
            fresh = keys, values
            held[owner] = past, fresh
        columns = _held(start, block, past[0].shape[2])
        visible = columns >= (0 if spec.window is None else jnp.maximum(positions[:, None] - spec.window + 1, 0))
        return attend_one(q, past, fresh, jnp.concatenate([visible, written], axis=1), spec)

    x = decoder.walk(tokens[:, None], positions[:, None], attend)
    return decoder.logits(x)[:, 0], tuple(held[owner][1] for owner in owners)


def attend_one(q: jax.Array, past: KV, new: KV, mask: jax.Array, spec: LayerSpec) -> jax.Array:
    """Attention of one query per row, q [b 1 n h], over two stretches of keys and values; mask [b s+c] -> [b 1 n h]."""
    b, _, n, h = q.shape
    q = q.reshape(b, past[0].shape[1], -1, h)
    parts = [jnp.einsum("bkgh,bksh->bkgs", q, keys, preferred_element_type=jnp.float32) for keys in (past[0], new[0])]
    weights = weigh(jnp.concatenate(parts, axis=-1), mask[:, None, None], spec).astype(q.dtype)
    split = past[0].shape[2]
    out = jnp.einsum("bkgs,bksh->bkgh", weights[..., :split], past[1], preferred_element_type=jnp.float32)
    out += jnp.einsum("bkgs,bksh->bkgh", weights[..., split:], new[1], preferred_element_type=jnp.float32)
    return out.reshape(b, 1, n, h).astype(q.dtype)


def flush(cache: Layers, new: Layers, start: jax.Array) -> Layers:
    """Write every row's block where it belongs. Free slots get a stale one; filling them overwrites it."""
    block = new[0][0].shape[2]

    def row(r: jax.Array, cache: Layers) -> Layers:
        def put(cached: KV, fresh: KV) -> KV:
            k, v = (jax.lax.dynamic_index_in_dim(x, r, keepdims=True) for x in fresh)
            at = _first_column(start[r], block, cached[0].shape[2])
            keys = jax.lax.dynamic_update_slice(cached[0], k, (r, 0, at, 0))
            return keys, jax.lax.dynamic_update_slice(cached[1], v, (r, 0, at, 0))

        return tuple(put(cached, fresh) for cached, fresh in zip(cache, new, strict=True))

    return jax.lax.fori_loop(0, start.shape[0], row, cache)
