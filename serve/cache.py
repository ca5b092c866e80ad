"""The cache of all slots and one decode step over it, in the layout that makes both attention products plain ones.

Keys lie as [b k h s] and values as [b k s h]: with a single query per row, the scores and the weighted sum are then
row-major matrix products that nothing has to be transposed for (on CPU an order of magnitude faster than [b s k h]).
A sliding layer holds a ring of `window` positions: index j has the latest position p <= now with p % s == j.
"""

import jax
import jax.numpy as jnp

from models.attention import MASKED
from models.decoder import Decoder

Layers = tuple[tuple[jax.Array, jax.Array], ...]


def empty_cache(decoder: Decoder, slots: int, length: int) -> Layers:
    """Zeros for `slots` sequences of at most `length` positions."""
    dtype = decoder.embed[...].dtype

    def shapes(heads: int, width: int, window: int | None) -> tuple[jax.Array, jax.Array]:
        s = min(length, window or length)
        return jnp.zeros((slots, heads, width, s), dtype), jnp.zeros((slots, heads, s, width), dtype)

    return tuple(shapes(spec.kv_heads, spec.head_dim, spec.window) for spec in decoder.spec.layers)


def place(cache: Layers, kv: Layers, numbers: jax.Array) -> Layers:
    """Write a prefilled prompt, keys and values [1 t k h] per layer; `numbers` are the slot and the prompt's length."""
    slot, length = numbers[0], numbers[1]

    def layer(cached: tuple[jax.Array, jax.Array], fresh: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        s = cached[0].shape[3]
        k, v = (_latest(x, s, length).astype(cached[0].dtype) for x in fresh)
        at = (slot, 0, 0, 0)
        keys = jax.lax.dynamic_update_slice(cached[0], k.transpose(0, 2, 3, 1), at)
        return keys, jax.lax.dynamic_update_slice(cached[1], v.transpose(0, 2, 1, 3), at)

    return tuple(layer(cached, fresh) for cached, fresh in zip(cache, kv, strict=True))


def _latest(fresh: jax.Array, s: int, length: jax.Array) -> jax.Array:
    """What a ring of s holds after `length` positions of fresh [1 t k h]; t <= s needs no reordering."""
    if fresh.shape[1] <= s:
        return fresh
    held = length - 1 - (length - 1 - jnp.arange(s)) % s
    return jnp.take(fresh, jnp.maximum(held, 0), axis=1)


def decode(decoder: Decoder, tokens: jax.Array, positions: jax.Array, cache: Layers) -> tuple[jax.Array, Layers]:
    """One token for each sequence: tokens, positions [b] -> logits [b v] and the cache with them written.

    A layer attends to its cache and, apart, to the token's own key and value; all layers are written at the end.
    """
    x = decoder.embedded(tokens[:, None])
    fresh: list[tuple[jax.Array, jax.Array]] = []
    for layer, (keys, values) in zip(decoder.layers, cache, strict=True):
        # A ring never holds a position outside the window; at age 0 stands what this token will overwrite.
        age = (positions[:, None] - jnp.arange(keys.shape[3])) % keys.shape[3]
        held = (age > 0) & (age <= positions[:, None])

        def look(
            q: jax.Array,
            k: jax.Array,
            v: jax.Array,
            keys: jax.Array = keys,
            values: jax.Array = values,
            held: jax.Array = held,
        ) -> jax.Array:
            fresh.append((k[:, 0], v[:, 0]))
            return attend_one(q[:, 0], k[:, 0], v[:, 0], keys, values, held)[:, None]

        x = layer(x, positions[:, None], look)
    logits = decoder.logits(x)[:, 0]
    # Always 0, but XLA cannot know: the write waits for the last layer's read, or that layer's cache would be copied.
    after = jnp.minimum(jnp.abs(logits[0, 0]).astype(jnp.int32), 0)
    return logits, _write(cache, fresh, positions + after)


def attend_one(
    q: jax.Array, k: jax.Array, v: jax.Array, keys: jax.Array, values: jax.Array, held: jax.Array
) -> jax.Array:
    """One query per row: q [b n h]; its own k, v [b k h]; keys [b k h s], values [b k s h] where held [b s] -> [b n h]."""
    b, n, h = q.shape
    q = q.reshape(b, k.shape[1], -1, h)
    scores = jnp.einsum("bkgh,bkhs->bkgs", q, keys, preferred_element_type=jnp.float32)
    own = jnp.sum(q.astype(jnp.float32) * k[:, :, None].astype(jnp.float32), axis=-1, keepdims=True)
    scores = jnp.concatenate([jnp.where(held[:, None, None], scores, MASKED), own], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1)
    past = weights[..., :-1].astype(values.dtype)
    out = jnp.einsum("bkgs,bksh->bkgh", past, values, preferred_element_type=jnp.float32)
    out += weights[..., -1:] * v[:, :, None].astype(jnp.float32)
    return out.reshape(b, n, h).astype(v.dtype)


def _write(cache: Layers, fresh: list[tuple[jax.Array, jax.Array]], positions: jax.Array) -> Layers:
    """Write each row's k and v [b k h] at its position, row by row: XLA's scatter takes ten times as long on CPU."""

    def row(i: jax.Array, cache: Layers) -> Layers:
        def put(cached: tuple[jax.Array, jax.Array], new: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            k, v = (jax.lax.dynamic_index_in_dim(x, i, keepdims=True).astype(cached[0].dtype) for x in new)
            at = positions[i] % cached[0].shape[3]
            keys = jax.lax.dynamic_update_slice(cached[0], k[..., None], (i, 0, 0, at))
            return keys, jax.lax.dynamic_update_slice(cached[1], v[:, :, None], (i, 0, at, 0))

        return tuple(put(cached, new) for cached, new in zip(cache, fresh, strict=True))

    return jax.lax.fori_loop(0, positions.shape[0], row, cache)
