"""Attention behind one function, and rotary embedding."""

import jax
import jax.numpy as jnp

from models.spec import Rope

MASKED = -1e30


def rotate(x: jax.Array, positions: jax.Array, rope: Rope) -> jax.Array:
    """Rotary embedding of x [b t heads h] at positions [b t], computed in float32."""
    half = x.shape[-1] // 2
    steps = jnp.arange(half, dtype=jnp.float32)
    frequency = jnp.where(steps < rope.rotary, rope.theta ** (-steps / half), 0.0)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(x.dtype)


def visible(
    q_positions: jax.Array, k_positions: jax.Array, window: int | None, same: jax.Array | None = None
) -> jax.Array:
    """Mask [b t s]: a query sees keys at its own position and before, within `window`, where `same` holds."""
    distance = q_positions[:, :, None] - k_positions[:, None, :]
    mask = distance >= 0
    if window is not None:
        mask &= distance < window
    return mask if same is None else mask & same


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Exact attention, softmax in float32, no scaling (Gemma 4 normalises q and k instead).

    q [b t n h]; k, v [b s k h] with n a multiple of k; mask [b t s] -> [b t n h].
    """
    b, t, n, h = q.shape
    groups = k.shape[2]
    shared = n // groups
    # One plain product per row and key head, the queries that share the head as its rows: batched products with the
    # head axis inside run at a fraction of the speed on CPU.
    q = q.reshape(b, t, groups, shared, h).transpose(0, 2, 3, 1, 4).reshape(b, groups, shared * t, h)
    k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores.reshape(b, groups, shared, t, -1), MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(b, groups, shared * t, -1)
    out = jnp.matmul(weights, v, preferred_element_type=jnp.float32)
    out = out.reshape(b, groups, shared, t, h).transpose(0, 3, 1, 2, 4)
    return out.reshape(b, t, n, h).astype(q.dtype)
