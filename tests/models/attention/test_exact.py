"""Attention, its scale and soft cap, rope scaling and the mixture of experts against their formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.exact import attend, frequencies, visible
from models.experts import mix, route
from models.spec import Experts, LayerSpec, Rope, Stretch


def spec(scale: float = 1.0, cap: float | None = None, window: int | None = None) -> LayerSpec:
    return LayerSpec("x", 4, 2, 8, 16, Rope(1e4, 4), window=window, scale=scale, cap=cap)


@pytest.mark.parametrize(("scale", "cap", "window"), [(1.0, None, None), (0.3, None, 3), (0.5, 2.0, None)])
def test_attention_is_the_formula(scale: float, cap: float | None, window: int | None) -> None:
    random = np.random.default_rng(0)
    q = random.standard_normal((2, 6, 4, 8)).astype(np.float32)
    k, v = (random.standard_normal((2, 6, 2, 8)).astype(np.float32) for _ in "kv")
    at = np.broadcast_to(np.arange(6), (2, 6))
    mask = visible(jnp.asarray(at), jnp.asarray(at), window)
    got = attend(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), mask, spec(scale, cap, window))
    scores = np.einsum("btkgh,bskh->bkgts", q.reshape(2, 6, 2, 2, 8), k) * scale
    if cap is not None:
        scores = cap * np.tanh(scores / cap)
    far = np.arange(6)[:, None] - np.arange(6)
    scores[..., (far < 0) | (far >= (window or 6))] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    want = np.einsum("bkgts,bskh->btkgh", weights, v).reshape(2, 6, 4, 8)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_frequencies_of_rope_scaling() -> None:
    plain = frequencies(Rope(1e4, 8), 16)
    np.testing.assert_allclose(plain, 1e4 ** (-np.arange(8) / 8), rtol=1e-6)
    np.testing.assert_allclose(frequencies(Rope(1e4, 8, 4.0), 16), plain / 4, rtol=1e-6)
    assert frequencies(Rope(1e4, 3), 16)[3:].tolist() == [0.0] * 5
    stretched = frequencies(Rope(1e4, 8, 4.0, Stretch(1.0, 4.0, 64)), 16)
    turns = 64 * plain / (2 * np.pi)
    np.testing.assert_allclose(stretched[turns > 4], plain[turns > 4], rtol=1e-6)
    np.testing.assert_allclose(stretched[turns < 1], plain[turns < 1] / 4, rtol=1e-6)
    between = (turns > 1) & (turns < 4)
    assert between.any() and ((stretched < plain) & (stretched > plain / 4))[between].all()


def test_experts_are_a_weighted_sum_of_dense_ones() -> None:
    random = np.random.default_rng(1)
    x, scores = (random.standard_normal(shape).astype(np.float32) for shape in ((2, 5, 8), (2, 5, 6)))
    gate_up, down = (random.standard_normal(shape).astype(np.float32) for shape in ((6, 2, 4, 8), (6, 8, 4)))
    scale = random.random(6).astype(np.float32)
    chosen, weights = route(jnp.asarray(scores), jnp.asarray(scale), Experts(6, 2, 4))
    got = mix(jnp.asarray(x), chosen, weights, jnp.asarray(gate_up), jnp.asarray(down), jax.nn.relu)
    best = np.argsort(-scores, axis=-1)[..., :2]
    assert np.array_equal(np.sort(chosen), np.sort(best))
    share = np.zeros_like(scores)
    picked = np.exp(np.take_along_axis(scores, best, -1))
    np.put_along_axis(share, best, picked / picked.sum(-1, keepdims=True), -1)
    gate, up = np.einsum("btd,esfd->sbtef", x, gate_up)
    every = np.einsum("btef,edf->bted", np.maximum(gate, 0) * up, down)
    np.testing.assert_allclose(got, np.einsum("bted,bte->btd", every, share * scale), atol=1e-4)
