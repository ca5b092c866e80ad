"""Draws: nucleus against a sort, frequencies against probabilities, and independence from place in the batch."""

import jax
import jax.numpy as jnp
import numpy as np

from serve.engine.sampler import Rows, logprobs, nucleus_floor, pick, sample, uniforms


def rows(b: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0) -> Rows:
    word = np.full(b, seed, np.uint32)
    return Rows(
        np.full(b, temperature, np.float32), np.full(b, top_p, np.float32), word, word, np.arange(b, dtype=np.uint32)
    )


def test_nucleus_is_the_smallest_set_that_holds_top_p() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 1000)).astype(np.float32)
    scaled = logits - logits.max(axis=1, keepdims=True)
    top_p = np.array([0.1, 0.5, 0.9, 0.95, 0.999, 1.0], np.float32)
    floor = np.asarray(jax.jit(nucleus_floor)(scaled, top_p))
    for row in range(6):
        order = np.argsort(-scaled[row])
        mass = np.cumsum(np.exp(scaled[row][order].astype(np.float64)))
        count = 1000 if top_p[row] >= 1 else int(np.searchsorted(mass / mass[-1], top_p[row])) + 1
        assert set(np.flatnonzero(scaled[row] >= floor[row])) == set(order[:count])


def test_pick_follows_the_running_sum() -> None:
    weights = np.array([[0, 1, 0, 3, 0, 4, 0]], np.float32)
    for u, wanted in ((0.0, 1), (0.12, 1), (0.13, 3), (0.49, 3), (0.51, 5), (0.9999999, 5)):
        assert int(pick(jnp.asarray(weights), jnp.array([u], jnp.float32))[0]) == wanted


def test_frequencies_match_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    draws = 4000
    tokens, _ = jax.jit(sample)(np.tile(logits, (draws, 1)), rows(draws), np.zeros(draws, np.int32))
    seen = np.bincount(np.asarray(tokens), minlength=4) / draws
    np.testing.assert_allclose(seen, [0.5, 0.25, 0.15, 0.1], atol=0.03)
    tokens, _ = jax.jit(sample)(np.tile(logits, (draws, 1)), rows(draws, top_p=0.7), np.zeros(draws, np.int32))
    np.testing.assert_allclose(np.bincount(np.asarray(tokens), minlength=4) / draws, [2 / 3, 1 / 3, 0, 0], atol=0.03)


def test_a_draw_does_not_depend_on_its_place() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (8, 300)).astype(np.float32)
    positions = np.arange(8, dtype=np.int32)
    given = rows(8, temperature=0.9, top_p=0.9, seed=3)
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    drawn = np.asarray(jax.jit(sample)(logits, given, positions)[0])
    moved = jax.jit(sample)(logits[order], Rows(*(a[order] for a in given)), positions[order])[0]
    np.testing.assert_array_equal(drawn[order], np.asarray(moved))


def test_keys_are_folded_from_seed_sample_and_position() -> None:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 2), 11)
    zero = np.zeros(1, np.uint32)
    given = Rows(np.ones(1, np.float32), np.ones(1, np.float32), zero, zero + 5, zero + 2)
    assert float(uniforms(given, jnp.array([11]))[0]) == float(jax.random.uniform(key))


def test_greedy_and_drawn_rows_mix_and_logprobs_are_log_softmax() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (4, 50)).astype(np.float32)
    given = rows(4)._replace(temperature=np.array([0, 1, 0, 1], np.float32))
    tokens, best = jax.jit(sample)(logits, given, np.zeros(4, np.int32))
    np.testing.assert_array_equal(np.asarray(tokens)[[0, 2]], logits.argmax(axis=1)[[0, 2]])
    chosen, top = logprobs(jnp.asarray(logits), tokens, best)
    expected = np.asarray(jax.nn.log_softmax(logits, axis=1))
    np.testing.assert_allclose(chosen, expected[np.arange(4), np.asarray(tokens)], atol=1e-5)
    np.testing.assert_allclose(top, expected.max(axis=1), atol=1e-5)
