"""Draws: nucleus against a sort, frequencies against probabilities, and independence from place in the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from serve.engine.sampler import Rows, logprobs, most_likely, pick, sample, uniforms


def rows(b: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0) -> Rows:
    word = np.full(b, seed, np.uint32)
    return Rows(
        np.full(b, temperature, np.float32), np.full(b, top_p, np.float32), word, word, np.arange(b, dtype=np.uint32)
    )


@pytest.mark.parametrize("v", [1000, 1024])
def test_draws_are_of_the_nucleus_in_proportion(v: int) -> None:
    """The smallest set that holds top_p, by a sort: all of it is drawn, nothing else, as often as it should be."""
    logits = np.random.default_rng(0).normal(0, 3, v).astype(np.float32)
    order = np.argsort(-logits)
    mass = np.exp(logits[order].astype(np.float64) - logits.max()) / np.exp(logits - logits.max()).sum()
    draws = 3000
    for top_p in (0.02, 0.5, 0.9, 0.999, 1.0):
        count = v if top_p >= 1 else int(np.searchsorted(np.cumsum(mass), top_p)) + 1
        tokens, _ = jax.jit(sample)(np.tile(logits, (draws, 1)), rows(draws, top_p=top_p), np.zeros(draws, np.int32))
        seen = np.bincount(np.asarray(tokens), minlength=v)[order]
        assert seen[count:].sum() == 0
        expected = draws * mass[:count] / mass[:count].sum()
        rare = expected < 5
        observed, expected = (np.append(x[:count][~rare], x[:count][rare].sum()) for x in (seen, expected))
        held = expected > 0
        statistic = float(((observed - expected)[held] ** 2 / expected[held]).sum())
        assert statistic < held.sum() + 5 * np.sqrt(2 * held.sum()), (top_p, statistic)


def test_equally_likely_tokens_are_in_the_nucleus_together() -> None:
    logits = np.log(np.array([0.4, 0.2, 0.2, 0.2], np.float32))
    tokens, _ = jax.jit(sample)(np.tile(logits, (500, 1)), rows(500, top_p=0.5), np.zeros(500, np.int32))
    assert set(np.asarray(tokens).tolist()) == {0, 1, 2, 3}
    tokens, _ = jax.jit(sample)(np.tile(logits, (500, 1)), rows(500, top_p=0.39), np.zeros(500, np.int32))
    assert set(np.asarray(tokens).tolist()) == {0}


def test_pick_follows_the_running_sum() -> None:
    weights = jnp.asarray([[[0, 1, 0], [3, 0, 4], [0, 0, 0]]], jnp.float32)
    for u, wanted in ((0.0, 1), (0.12, 1), (0.13, 3), (0.49, 3), (0.51, 5), (0.9999999, 5)):
        index, weight = pick(weights, weights.sum(axis=2), jnp.zeros(1), jnp.array([u], jnp.float32))
        assert (int(index[0]), float(weight[0])) == (wanted, float(weights.reshape(-1)[wanted]))
    above = jnp.where(weights > 1, weights, 0)
    for u, wanted in ((0.0, 3), (0.42, 3), (0.43, 5)):
        index, _ = pick(weights, above.sum(axis=2), jnp.ones(1), jnp.array([u], jnp.float32))
        assert int(index[0]) == wanted


@pytest.mark.parametrize("v", [1, 7, 400, 1000, 262144 // 64])
def test_the_most_likely_is_the_first_of_the_largest(v: int) -> None:
    logits = np.random.default_rng(v).integers(-9, 9, (5, v)).astype(np.float32)
    np.testing.assert_array_equal(most_likely(jnp.asarray(logits)), logits.argmax(axis=1))


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
    assert float(uniforms(given, jnp.array([11]), jnp.int32(0))[0]) == float(jax.random.uniform(key))
    again = jax.random.uniform(jax.random.fold_in(key, 3))
    assert float(uniforms(given, jnp.array([11]), jnp.int32(3))[0]) == float(again)


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
