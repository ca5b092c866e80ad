"""Draw one token per row of logits [b v], each row with its own temperature, top_p and key, without a sort.

A draw depends on (seed, sample, position) and the row's logits only, never on the row's place in the batch.
Nucleus sampling: Holtzman et al. 2019 (arXiv:1904.09751), section 3.1. A token drawn from all is kept if those likelier
than it hold less than top_p; else the next is drawn from those, which the nucleus is part of: so a kept token is drawn
from the nucleus, in proportion (as in FlashInfer's sampling kernels, arXiv:2501.01005). Most rows need one look.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Rows(NamedTuple):
    """Per-row parameters, each [b]; a seed of 64 bits comes as two words."""

    temperature: np.ndarray | jax.Array
    top_p: np.ndarray | jax.Array
    seed_high: np.ndarray | jax.Array
    seed_low: np.ndarray | jax.Array
    sample: np.ndarray | jax.Array


def empty_rows(b: int) -> Rows:
    """Greedy rows, in host memory."""
    zeros = np.zeros(b, np.uint32)
    return Rows(np.zeros(b, np.float32), np.ones(b, np.float32), zeros, zeros.copy(), zeros.copy())


def uniforms(rows: Rows, positions: jax.Array, attempt: jax.Array) -> jax.Array:
    """One number in [0, 1) per row from fold_in(fold_in(key(seed), sample), position), folded once more with the number
    of an attempt that is not the first."""

    def one(high: jax.Array, low: jax.Array, sample: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(jnp.stack([high, low]), impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, sample), position)
        again = jax.random.key_data(jax.random.fold_in(key, attempt))
        chosen = jnp.where(attempt > 0, again, jax.random.key_data(key))
        return jax.random.uniform(jax.random.wrap_key_data(chosen, impl="threefry2x32"))

    return jax.vmap(one)(*map(jnp.asarray, (rows.seed_high, rows.seed_low, rows.sample, positions)))


def most_likely(logits: jax.Array) -> jax.Array:
    """The first index [b] of each row's maximum: by block first, then in one block, XLA's argmax being slow on CPU."""
    blocks = _blocks(logits, -jnp.inf)
    block = jnp.argmax(jnp.max(blocks, axis=2), axis=1)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return (block * blocks.shape[2] + jnp.argmax(inside, axis=1)).astype(jnp.int32)


def _blocks(x: jax.Array, fill: float) -> jax.Array:
    """[b v] as [b blocks width], about as many as they are wide; without a copy where a power of two divides v."""
    b, v = x.shape
    widest = 1 << ((v - 1).bit_length() + 1) // 2
    width = min(widest, v & -v)
    if width * width < widest:
        width = widest
    return jnp.pad(x, ((0, 0), (0, -v % width)), constant_values=fill).reshape(b, -1, width)


def pick(blocks: jax.Array, sums: jax.Array, floor: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the running sum of the weights [b blocks width] above `floor` [b] passes u * total, by block first, whose
    `sums` of these weights are [b blocks]: its index and its weight, each [b]."""
    ends = jnp.cumsum(sums, axis=1)
    target = u * ends[:, -1]
    block = _first_above(ends, target)
    before = jnp.where(block > 0, _at(ends, jnp.maximum(block - 1, 0)), 0.0)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    place = _first_above(jnp.cumsum(jnp.where(inside > floor[:, None], inside, 0.0), axis=1), target - before)
    return block * blocks.shape[2] + place, _at(inside, place)


def _at(x: jax.Array, index: jax.Array) -> jax.Array:
    """x [b n] at index [b] -> [b]."""
    return jnp.take_along_axis(x, index[:, None], axis=1)[:, 0]


def _first_above(ends: jax.Array, target: jax.Array) -> jax.Array:
    """First index whose running sum exceeds target; where rounding leaves none, the last with any weight."""
    above = ends > target[:, None]
    last = jnp.argmax(ends >= ends[:, -1:], axis=1)
    return jnp.where(jnp.any(above, axis=1), jnp.argmax(above, axis=1), last).astype(jnp.int32)


def _draw(logits: jax.Array, best: jax.Array, rows: Rows, positions: jax.Array) -> jax.Array:
    temperature = jnp.where(rows.temperature > 0, rows.temperature, 1.0)[:, None]
    blocks = _blocks(jnp.exp((logits - _at(logits, best)[:, None]) / temperature), 0.0)

    def attempt(number: jax.Array, sums: jax.Array, floor: jax.Array) -> tuple[jax.Array, jax.Array]:
        return pick(blocks, sums, floor, uniforms(rows, positions, number))

    def unsure(state: tuple[jax.Array, ...]) -> jax.Array:
        return jnp.any(~state[-1])

    def look(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        number, token, weight, kept = state
        likelier = jnp.sum(jnp.where(blocks > weight[:, None, None], blocks, 0.0), axis=2)
        mass = jnp.sum(likelier, axis=1)
        kept |= (mass < wanted) | (mass <= 0)
        other, its = attempt(number, likelier, weight)
        return number + 1, jnp.where(kept, token, other), jnp.where(kept, weight, its), kept

    sums = jnp.sum(blocks, axis=2)
    wanted = jnp.asarray(rows.top_p) * jnp.sum(sums, axis=1)
    token, weight = attempt(jnp.int32(0), sums, jnp.zeros_like(wanted))
    kept = jnp.asarray((rows.top_p >= 1) | (rows.temperature <= 0))
    return jax.lax.while_loop(unsure, look, (jnp.int32(1), token, weight, kept))[1]


def sample(logits: jax.Array, rows: Rows, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(tokens [b], most likely tokens [b]) for float32 logits [b v]; `positions` [b] are those of the drawn tokens."""
    best = most_likely(logits)
    drawn = jax.lax.cond(jnp.any(rows.temperature > 0), lambda: _draw(logits, best, rows, positions), lambda: best)
    return jnp.where(rows.temperature > 0, drawn, best), best


def logprobs(logits: jax.Array, tokens: jax.Array, best: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Natural log-probabilities [b] of `tokens` and of `best` under the untempered logits [b v]."""
    norm = jax.nn.logsumexp(logits, axis=1)
    chosen, top = (_at(logits, ids) for ids in (tokens, best))
    return chosen - norm, top - norm
