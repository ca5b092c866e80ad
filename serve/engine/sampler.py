"""Draw one token per row of logits [b v], each row with its own temperature, top_p and key, without a sort.

A draw depends on (seed, sample, position) and the row's logits only, never on the row's place in the batch.
Nucleus sampling: Holtzman et al. 2019 (arXiv:1904.09751), section 3.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BISECTIONS = 20
"""Halvings of the log-probability bracket: tokens within 3e-5 nats of the nucleus' edge count as on it."""
LOG_SPAN = 32.0
"""Tokens less likely than exp(-32) times the best one are outside every nucleus."""


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


def uniforms(rows: Rows, positions: jax.Array) -> jax.Array:
    """One number in [0, 1) per row from fold_in(fold_in(key(seed), sample), position)."""

    def one(high: jax.Array, low: jax.Array, sample: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(jnp.stack([high, low]), impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, sample), position))

    return jax.vmap(one)(*map(jnp.asarray, (rows.seed_high, rows.seed_low, rows.sample, positions)))


def nucleus_floor(scaled: jax.Array, top_p: jax.Array) -> jax.Array:
    """The largest log-weight f [b 1] such that weights exp(scaled) with scaled >= f hold top_p of the mass.

    `scaled` [b v] has its row maximum at 0. Found by bisection; a row with top_p >= 1 keeps every token.
    """
    weights = jnp.exp(scaled)
    wanted = top_p[:, None] * jnp.sum(weights, axis=1, keepdims=True)

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = (low + high) / 2
        enough = jnp.sum(jnp.where(scaled >= middle, weights, 0.0), axis=1, keepdims=True) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    top = jnp.zeros_like(wanted)
    floor, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (top - LOG_SPAN, top))
    return jnp.where(top_p[:, None] >= 1.0, -jnp.inf, floor)


def most_likely(logits: jax.Array) -> jax.Array:
    """The first index [b] of each row's maximum: by block first, then in one block, XLA's argmax being slow on CPU."""
    blocks = _blocks(logits, -jnp.inf)
    block = jnp.argmax(jnp.max(blocks, axis=2), axis=1)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return (block * blocks.shape[2] + jnp.argmax(inside, axis=1)).astype(jnp.int32)


def _blocks(x: jax.Array, fill: float) -> jax.Array:
    """[b v] as [b blocks width], about as many as they are wide."""
    b, v = x.shape
    width = 1 << ((v - 1).bit_length() + 1) // 2
    return jnp.pad(x, ((0, 0), (0, -v % width)), constant_values=fill).reshape(b, -1, width)


def pick(weights: jax.Array, u: jax.Array) -> jax.Array:
    """Index [b] at which the running sum of weights [b v] passes u * total: by block first, then in one block."""
    b, v = weights.shape
    width = 1 << ((v - 1).bit_length() + 1) // 2
    blocks = jnp.pad(weights, ((0, 0), (0, -v % width))).reshape(b, -1, width)
    ends = jnp.cumsum(jnp.sum(blocks, axis=2), axis=1)
    target = u * ends[:, -1]
    block = _first_above(ends, target)
    before = jnp.where(block > 0, jnp.take_along_axis(ends, jnp.maximum(block - 1, 0)[:, None], axis=1)[:, 0], 0.0)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return block * width + _first_above(jnp.cumsum(inside, axis=1), target - before)


def _first_above(ends: jax.Array, target: jax.Array) -> jax.Array:
    """First index whose running sum exceeds target; where rounding leaves none, the last with any weight."""
    above = ends > target[:, None]
    last = jnp.argmax(ends >= ends[:, -1:], axis=1)
    return jnp.where(jnp.any(above, axis=1), jnp.argmax(above, axis=1), last).astype(jnp.int32)


def _draw(logits: jax.Array, rows: Rows, positions: jax.Array) -> jax.Array:
    temperature = jnp.where(rows.temperature > 0, rows.temperature, 1.0)[:, None]
    scaled = (logits - jnp.max(logits, axis=1, keepdims=True)) / temperature
    floor = jax.lax.cond(
        jnp.any((rows.top_p < 1.0) & (rows.temperature > 0)),
        lambda: nucleus_floor(scaled, jnp.asarray(rows.top_p)),
        lambda: jnp.full((scaled.shape[0], 1), -jnp.inf, scaled.dtype),
    )
    return pick(jnp.where(scaled >= floor, jnp.exp(scaled), 0.0), uniforms(rows, positions))


def sample(logits: jax.Array, rows: Rows, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(tokens [b], most likely tokens [b]) for float32 logits [b v]; `positions` [b] are those of the drawn tokens."""
    best = most_likely(logits)
    drawn = jax.lax.cond(jnp.any(rows.temperature > 0), lambda: _draw(logits, rows, positions), lambda: best)
    return jnp.where(rows.temperature > 0, drawn, best), best


def logprobs(logits: jax.Array, tokens: jax.Array, best: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Natural log-probabilities [b] of `tokens` and of `best` under the untempered logits [b v]."""
    norm = jax.nn.logsumexp(logits, axis=1)
    chosen, top = (jnp.take_along_axis(logits, ids[:, None], axis=1)[:, 0] for ids in (tokens, best))
    return chosen - norm, top - norm
