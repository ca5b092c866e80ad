"""Two runs on the same problems: is the difference of their scores more than noise?

Paired by problem, which takes the problems' own difficulty out of the noise. The bootstrap draws problems anew.
"""

import bisect
import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from common.errors import UserError
from eval.score.statistics import bootstrap_means, normal_quantile, pass_at_k, percentiles

POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """Of pass@1, run minus baseline, over `problems` common problems; `smallest_effect` is what they could have shown
    with a power of 0.8; `mcnemar` is the exact two-sided p-value, where both runs have one sample a problem."""

    problems: int
    run: float
    baseline: float
    difference: float
    low: float
    high: float
    regression_probability: float
    smallest_effect: float
    mcnemar: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _rates(summary: dict[str, Any]) -> dict[str, tuple[int, int]]:
    samples = summary["per_problem_samples"]
    return {task: (samples[task], passed) for task, passed in summary["per_problem"].items()}


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p-value for `better` against `worse` discordant pairs (binomial with p = 1/2)."""
    n = better + worse
    tail = sum(math.comb(n, i) for i in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**n)


def compare(run: dict[str, Any], baseline: dict[str, Any], confidence: float = 0.95) -> Comparison:
    """Compare two summaries; UserError when they are not of the same problems."""
    if run["benchmark_digest"] != baseline["benchmark_digest"]:
        raise UserError(
            f"the runs are of different benchmarks, or versions of one: {run['benchmark']}, {baseline['benchmark']}",
            where="benchmark_digest",
            fix="score both on the same benchmark",
        )
    ours, theirs = _rates(run), _rates(baseline)
    if ours.keys() != theirs.keys():
        odd = min(ours.keys() ^ theirs.keys())
        raise UserError(
            f"only one of the runs has samples of {odd}", where="per_problem", fix="score both on all problems"
        )
    tasks = sorted(ours)
    pairs = [(pass_at_k(*ours[task], 1), pass_at_k(*theirs[task], 1)) for task in tasks]
    differences = [a - b for a, b in pairs]
    means = bootstrap_means(differences)
    low, high = percentiles(means, confidence)
    below, zero = bisect.bisect_left(means, 0.0), bisect.bisect_right(means, 0.0)
    spread = statistics.stdev(differences) / math.sqrt(len(tasks)) if len(tasks) > 1 else math.inf
    single = all(counts[0] == 1 for counts in [*ours.values(), *theirs.values()])
    return Comparison(
        problems=len(tasks),
        run=statistics.fmean(a for a, _ in pairs),
        baseline=statistics.fmean(b for _, b in pairs),
        difference=statistics.fmean(differences),
        low=low,
        high=high,
        regression_probability=(below + (zero - below) / 2) / len(means),
        smallest_effect=(normal_quantile(confidence) + statistics.NormalDist().inv_cdf(POWER)) * spread,
        mcnemar=mcnemar(differences.count(1.0), differences.count(-1.0)) if single else None,
    )
