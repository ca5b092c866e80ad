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

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from models.attention.exact import weigh
from models.decoder import Decoder
from models.layer import KV
from models.mesh import sharding_of
from models.spec import LayerSpec
from serve.engine.spread import Spread, own_row, spread

Layers = tuple[KV, ...]
"""Keys and values of every layer that has its own."""
HELD, FRESH = ("bksh", "bksh"), ("ptkh", "ptkh")
"""Axes of a cache or block, and of a prompt's keys and values."""


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


def spreads(decoder: Decoder, slots: int) -> list[Spread | None]:
    """How the cache of each layer lies on the devices; None: on one."""
    return [spread(decoder.attention.mesh, spec.kv_heads, slots) for spec in _owners(decoder)]


def places(
    decoder: Decoder, slots: int, axes: tuple[str, str]
) -> tuple[tuple[NamedSharding, NamedSharding], ...] | None:
    """Where keys and values with these axes lie, by layer; None on one device."""
    found = [each and (each.place(axes[0]), each.place(axes[1])) for each in spreads(decoder, slots)]
    return None if None in found else tuple(pair for pair in found if pair)


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


def place(decoder: Decoder, cache: Layers, kv: Layers, numbers: jax.Array, block: int) -> Layers:
    """Write a prefilled prompt, keys and values [1 t k h] per layer; `numbers` are the slot and the prompt's length."""

    def layer(over: Spread | None, cached: KV, fresh: KV, numbers: jax.Array) -> KV:
        slot, length = numbers[0], numbers[1]
        held = _held(length, block, cached[0].shape[2])
        row, mine = own_row(over, slot, cached[0].shape[0])

        def write(cached: jax.Array, fresh: jax.Array) -> jax.Array:
            lying = jnp.take(fresh, jnp.clip(held, 0, fresh.shape[1] - 1), axis=1).transpose(0, 2, 1, 3)
            return _write(cached, lying.astype(cached.dtype), (row, 0, 0, 0), mine)

        return write(cached[0], fresh[0]), write(cached[1], fresh[1])

    def placed(over: Spread | None, cached: KV, fresh: KV) -> KV:
        write = partial(layer, over)
        write = write if over is None else over.each(write, (HELD, FRESH, "i"), HELD)
        return write(cached, fresh, numbers)

    return tuple(map(placed, spreads(decoder, cache[0][0].shape[0]), cache, kv))


def _write(cached: jax.Array, fresh: jax.Array, at: tuple[Any, ...], mine: jax.Array | None) -> jax.Array:
    """The cache with `fresh` at this place, where it is `mine`; None: it is."""
    if mine is not None:
        fresh = jnp.where(mine, fresh, jax.lax.dynamic_slice(cached, at, fresh.shape))
    return jax.lax.dynamic_update_slice(cached, fresh, at)


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
    over = dict(zip(owners, spreads(decoder, positions.shape[0]), strict=True))
    mesh = decoder.attention.mesh

    def by_heads(q: jax.Array) -> jax.Array:
        """Around attention queries lie as the weights do: rows are held apart nowhere else."""
        return q if mesh is None else jax.lax.with_sharding_constraint(q, sharding_of(mesh, "btnh", q.shape))

    def attend(number: int, q: jax.Array, own: KV | None) -> jax.Array:
        spec = decoder.spec.layers[number]
        owner = spec.kv_layer(number)
        past, fresh = held[owner]
        columns = _held(start, block, past[0].shape[2])
        visible = columns >= (0 if spec.window is None else jnp.maximum(positions[:, None] - spec.window + 1, 0))
        mask = jnp.concatenate([visible, written], axis=1)
        here = partial(attend_new, spec=spec)
        if (each := over[owner]) is not None:
            given = ("btnh", HELD, HELD, None if own is None else ("btkh", "btkh"), "bs", "")
            here = each.each(here, given, ("btnh", HELD))
        out, fresh = here(by_heads(q), past, fresh, own, mask, i)
        held[owner] = past, fresh
        return by_heads(out)

    x = decoder.walk(tokens[:, None], positions[:, None], attend)
    return decoder.logits(x)[:, 0], tuple(held[owner][1] for owner in owners)


def attend_new(
    q: jax.Array, past: KV, fresh: KV, own: KV | None, mask: jax.Array, i: jax.Array, spec: LayerSpec
) -> tuple[jax.Array, KV]:
    """`attend_one` with the row's own keys and values [b 1 k h], if any, written at index i of the block first."""
    if own is not None:
        at = (0, 0, i, 0)
        keys = jax.lax.dynamic_update_slice(fresh[0], own[0].transpose(0, 2, 1, 3), at)
        fresh = keys, jax.lax.dynamic_update_slice(fresh[1], own[1].transpose(0, 2, 1, 3), at)
    return attend_one(q, past, fresh, mask, spec), fresh


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


def flush(decoder: Decoder, cache: Layers, new: Layers, start: jax.Array) -> Layers:
    """Write every row's block where it belongs. Free slots get a stale one; filling them overwrites it."""
    block = new[0][0].shape[2]
    over = spreads(decoder, start.shape[0])

    def put(over: Spread | None, cache: Layers, new: Layers, r: jax.Array, start: jax.Array) -> Layers:
        r, mine = own_row(over, r, cache[0][0].shape[0])

        def one(cached: KV, fresh: KV) -> KV:
            k, v = (jax.lax.dynamic_index_in_dim(x, r, keepdims=True) for x in fresh)
            at = (r, 0, _first_column(start, block, cached[0].shape[2]), 0)
            return _write(cached[0], k, at, mine), _write(cached[1], v, at, mine)

        return tuple(map(one, cache, new))

    def row(turn: jax.Array, cache: Layers) -> Layers:
        # From the last row on: where a loop's own counter says what is read and where it is written, libtpu 0.0.42
        # takes it for a copy of the whole, and fails ("triggered this wrong replacement").
        r = start.shape[0] - 1 - turn
        done: dict[int, KV] = {}
        for each in dict.fromkeys(over):
            mine = [i for i, other in enumerate(over) if other == each]
            axes = (HELD,) * len(mine)
            write = partial(put, each)
            write = write if each is None else each.each(write, (axes, axes, "", ""), axes)
            written = write(tuple(cache[i] for i in mine), tuple(new[i] for i in mine), r, start[r])
            done |= dict(zip(mine, written, strict=True))
        return tuple(done[i] for i in range(len(over)))

    return jax.lax.fori_loop(0, start.shape[0], row, cache)
