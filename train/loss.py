"""Cross-entropy of the supervised tokens, in chunks of positions where whole logits would take too much memory.

Logits of a large vocabulary outweigh everything else in a step: 8 rows of 3,072 tokens and 262,144 pieces are 26 GB in
float32, and their gradients as much again. Chunks are computed again in the backward pass.
"""

import math

import jax
import jax.numpy as jnp
import optax

from models.decoder import Decoder

Batch = dict[str, jax.Array]
LOGITS_BYTES = 256 << 20
"""Of float32 logits that a device may hold at once."""


def next_tokens(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Targets and weights [b t]: token t + 1 is the target of t, where it is supervised and of the same segment."""
    targets, segments, mask = (jnp.roll(batch[name], -1, axis=1) for name in ("tokens", "segments", "mask"))
    inside = (segments == batch["segments"]) & (jnp.arange(targets.shape[1])[None] < targets.shape[1] - 1)
    return targets, (mask & inside).astype(jnp.float32)


def weighted_loss(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum of cross-entropy, each position times its weight. logits [b t v]; targets, weights [b t]."""
    return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * weights)


def chunks_of(decoder: Decoder, rows: int, length: int, limit: int = LOGITS_BYTES) -> int:
    """The fewest equal chunks of `length` positions whose logits take no more than `limit` on a device."""
    mesh = decoder.attention.mesh
    ways = 1 if mesh is None else math.prod(mesh.shape.values())
    size = 4 * rows * length * decoder.spec.vocab // ways
    return next((n for n in range(1, length) if length % n == 0 and size <= n * limit), length)


def loss_of(
    decoder: Decoder, hidden: jax.Array, batch: Batch, limit: int = LOGITS_BYTES
) -> tuple[jax.Array, jax.Array]:
    """Sum of cross-entropy over the supervised targets and their number, for hidden [b t d] of `batch`."""
    targets, weights = next_tokens(batch)
    rows, length = targets.shape
    chunks = chunks_of(decoder, rows, length, limit)
    if chunks == 1:
        return weighted_loss(decoder.logits(hidden), targets, weights), jnp.sum(weights)

    @jax.checkpoint
    def add(total: jax.Array, each: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, some_targets, some_weights = each
        return total + weighted_loss(decoder.logits(x), some_targets, some_weights), None

    def cut(a: jax.Array) -> jax.Array:
        return jnp.moveaxis(a.reshape(rows, chunks, length // chunks, *a.shape[2:]), 1, 0)

    total, _ = jax.lax.scan(add, jnp.float32(0.0), (cut(hidden), cut(targets), cut(weights)))
    return total, jnp.sum(weights)
