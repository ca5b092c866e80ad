"""Attention behind one function, and rotary embedding."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from models.quant.contract import contract
from models.spec import LayerSpec, Rope

MASKED = -1e30


def frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """The head_dim / 2 angular frequencies, float32."""
    half = head_dim // 2
    steps = np.arange(half, dtype=np.float32)
    whole = np.where(steps < rope.rotary, np.float32(rope.theta) ** (-steps / half), 0.0)
    if rope.stretch is None:
        return (whole / rope.factor).astype(np.float32)
    low, high, original = rope.stretch.low, rope.stretch.high, rope.stretch.original
    turns = original * whole / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (kept * whole + (1 - kept) * whole / rope.factor).astype(np.float32)


def rotate(x: jax.Array, positions: jax.Array, rope: Rope) -> jax.Array:
    """Rotary embedding of x [b t heads h] at positions [b t], computed in float32."""
    angle = positions[..., None, None].astype(jnp.float32) * frequencies(rope, x.shape[-1])[None, None, None]
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


def weigh(scores: jax.Array, mask: jax.Array, spec: LayerSpec) -> jax.Array:
    """Softmax of float32 scores [... s], scaled and soft-capped as the layer says, where `mask` holds."""
    if spec.scale != 1.0:
        scores *= spec.scale
    if spec.cap is not None:
        scores = spec.cap * jnp.tanh(scores / spec.cap)
    return jax.nn.softmax(jnp.where(mask, scores, MASKED), axis=-1)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, spec: LayerSpec) -> jax.Array:
    """Exact attention, softmax in float32.

    q [b t n h]; k, v [b s k h] with n a multiple of k; mask [b t s] -> [b t n h].
    """
    b, t, n, h = q.shape
    groups = k.shape[2]
    shared = n // groups
    # One plain product per row and key head, the queries that share the head as its rows: batched products with the
    # head axis inside run at a fraction of the speed on CPU.
    q = q.reshape(b, t, groups, shared, h).transpose(0, 2, 3, 1, 4).reshape(b, groups, shared * t, h)
    k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    scores = contract("bkqh,bkhs->bkqs", q, k).reshape(b, groups, shared, t, -1)
    weights = weigh(scores, mask[:, None, None], spec).astype(v.dtype).reshape(b, groups, shared * t, -1)
    out = contract("bkqs,bksh->bkqh", weights, v)
    out = out.reshape(b, groups, shared, t, h).transpose(0, 3, 1, 2, 4)
    return out.reshape(b, t, n, h).astype(q.dtype)
