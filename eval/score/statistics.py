"""From counts of passes to figures with their uncertainty: pass@k, Wilson and bootstrap intervals.

pass@k is the unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, section 2.1), computed in exact fractions.
"""

import math
import random
import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction

Counts = Sequence[tuple[int, int]]
"""(samples, passed) of every problem."""

RESAMPLES = 2000


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that one of k of the n samples, c of which pass, passes: 1 - C(n-c, k) / C(n, k). Raises ValueError
    for counts that cannot be."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n; got n={n}, c={c}, k={k}")
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def mean_pass_at_k(counts: Counts, k: int) -> float:
    return statistics.fmean(pass_at_k(n, c, k) for n, c in counts)


def normal_quantile(confidence: float) -> float:
    return statistics.NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(passed: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; treats every sample as independent of the others."""
    if total == 0:
        return 0.0, 1.0
    z, p = normal_quantile(confidence), passed / total
    middle = p + z * z / (2 * total)
    spread = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return 0.0 if passed == 0 else low, 1.0 if passed == total else high


def bootstrap_means(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> list[float]:
    """Sorted means of resamples of `values` with replacement; the same seed gives the same list."""
    draw = random.Random(seed)
    return sorted(statistics.fmean(draw.choices(values, k=len(values))) for _ in range(resamples))


def percentiles(ordered: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The central interval of a sorted list."""
    tail = (1 - confidence) / 2
    low = math.floor(tail * (len(ordered) - 1))
    return ordered[low], ordered[len(ordered) - 1 - low]


def bootstrap(counts: Counts, k: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of mean pass@k over problems drawn anew: what another benchmark of this kind would show."""
    return percentiles(bootstrap_means([pass_at_k(n, c, k) for n, c in counts]), confidence)


def summarize(counts: dict[str, tuple[int, int]], ks: Sequence[int], only: Callable[[str], bool]) -> dict[str, object]:
    """Figures over the problems that `only` admits: pass@k, pass rate and their 95 % intervals."""
    chosen = [pair for task, pair in sorted(counts.items()) if only(task)]
    if not chosen:
        return {}
    samples, passed = sum(n for n, _ in chosen), sum(c for _, c in chosen)
    figures: dict[str, object] = {"pass_rate": passed / samples}
    intervals: dict[str, object] = {"pass_rate (Wilson)": wilson(passed, samples)}
    for k in ks:
        figures[f"pass@{k}"] = mean_pass_at_k(chosen, k)
        intervals[f"pass@{k}"] = bootstrap(chosen, k)
    return figures | {"intervals": intervals, "problems": len(chosen), "samples": samples, "passed": passed}
