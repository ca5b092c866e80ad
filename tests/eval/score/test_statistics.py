"""pass@k against exact counting, intervals against their promise, and the comparison of two runs."""

import math
import random
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from eval.score.compare import compare, mcnemar
from eval.score.statistics import bootstrap, mean_pass_at_k, pass_at_k, percentiles, summarize, wilson


@st.composite
def counts(draw: st.DrawFn, most: int) -> tuple[int, int, int]:
    n = draw(st.integers(1, most))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counts(7))
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(nck: tuple[int, int, int]) -> None:
    n, c, k = nck
    subsets = list(combinations(range(n), k))
    assert pass_at_k(n, c, k) == float(Fraction(sum(min(s) < c for s in subsets), len(subsets)))


@given(counts(400))
def test_pass_at_k_equals_the_product_of_chen_et_al(nck: tuple[int, int, int]) -> None:
    n, c, k = nck
    missed = math.prod((Fraction(i - k, i) for i in range(n - c + 1, n + 1)), start=Fraction(1)) if n - c >= k else 0
    assert abs(pass_at_k(n, c, k) - float(1 - missed)) <= 1e-12


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 1, 0), (5, 1, 6)])
def test_pass_at_k_refuses_the_impossible(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(n, c, k)


def test_the_mean_is_over_problems_not_samples() -> None:
    assert mean_pass_at_k([(2, 2), (8, 0)], 1) == 0.5


def test_wilson_has_the_published_values() -> None:
    low, high = wilson(10, 20)
    assert (round(low, 4), round(high, 4)) == (0.2993, 0.7007)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    n, p = 60, 0.35
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    covered = sum(w for c, w in enumerate(weights) if wilson(c, n)[0] <= p <= wilson(c, n)[1])
    assert 0.94 <= covered <= 0.96


def test_the_bootstrap_is_reproducible_and_holds_the_mean() -> None:
    found = [(5, c) for c in (0, 0, 1, 2, 3, 5, 5, 5, 4, 0)]
    low, high = bootstrap(found, 1)
    assert (low, high) == bootstrap(found, 1)
    assert low < mean_pass_at_k(found, 1) < high


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 5])
def test_the_bootstrap_covers_the_truth_as_often_as_it_says(n: int) -> None:
    """4,000 benchmarks of 156 problems, each with a chance of its own; percentile intervals by the same rule."""
    draw = np.random.default_rng(0)
    problems, benchmarks, resamples = 156, 4000, 1000
    chances = draw.beta(0.8, 0.6, (benchmarks, problems))
    scores = draw.binomial(n, chances) / n
    covered = 0
    for row in scores:
        means = row[draw.integers(0, problems, (resamples, problems))].mean(axis=1)
        low, high = percentiles(np.sort(means).tolist())
        covered += low <= 0.8 / 1.4 <= high
    assert 0.94 <= covered / benchmarks <= 0.96


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_percentiles_lie_within_the_list(values: list[float]) -> None:
    low, high = percentiles(sorted(values))
    assert min(values) <= low <= high <= max(values)


def test_a_summary_leaves_out_what_it_is_told() -> None:
    figures = summarize({"a": (2, 2), "b": (2, 0)}, (1, 2), lambda task: task == "a")
    assert figures["pass@1"] == 1.0 and figures["problems"] == 1 and figures["passed"] == 2
    assert summarize({"a": (2, 2)}, (1,), lambda task: False) == {}


def _summary(passed: list[int], n: int, digest: str = "d") -> dict[str, object]:
    tasks = [f"t{i:03}" for i in range(len(passed))]
    return {
        "benchmark": "b",
        "benchmark_digest": digest,
        "per_problem": dict(zip(tasks, passed, strict=True)),
        "per_problem_samples": dict.fromkeys(tasks, n),
    }


def test_a_run_against_itself_shows_nothing() -> None:
    found = compare(_summary([0, 3, 5, 2], 5), _summary([0, 3, 5, 2], 5))
    assert (found.difference, found.low, found.high, found.regression_probability) == (0.0, 0.0, 0.0, 0.5)


def test_a_clear_regression_is_told_from_noise() -> None:
    draw = random.Random(1)
    base = [draw.randint(2, 5) for _ in range(80)]
    found = compare(_summary([c - 2 for c in base], 5), _summary(base, 5))
    assert found.high < 0 and found.regression_probability == 1.0 and math.isclose(found.difference, -0.4)
    noisy = compare(_summary([max(0, c - draw.choice((-1, 1))) for c in base], 10), _summary(base, 10))
    assert noisy.low < 0 < noisy.high and noisy.smallest_effect > abs(noisy.difference)


def test_mcnemar_is_the_exact_binomial_and_for_single_samples() -> None:
    assert mcnemar(0, 0) == 1.0 and mcnemar(5, 5) == 1.0
    assert math.isclose(mcnemar(1, 8), 2 * (1 + 9) / 2**9)
    assert compare(_summary([1, 0, 1], 1), _summary([0, 0, 1], 1)).mcnemar == 1.0
    assert compare(_summary([1, 0, 1], 2), _summary([0, 0, 1], 2)).mcnemar is None


def test_runs_of_different_problems_are_not_compared() -> None:
    with pytest.raises(UserError, match="different benchmarks"):
        compare(_summary([1], 1), _summary([1], 1, "e"))
    with pytest.raises(UserError, match="only one of the runs"):
        compare(_summary([1], 1), _summary([1, 1], 1))
