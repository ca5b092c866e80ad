"""What a run leaves behind in figures: summary.json, and the metrics of the stage's record."""

from collections import Counter
from typing import Any

from common.benchmark.problems import Benchmark
from common.errors import UserError
from eval.config import EvalConfig
from eval.grade.verdict import CATEGORIES
from eval.journal import Journal
from eval.score import statistics


def _counts(results: Journal) -> dict[str, tuple[int, int]]:
    samples, passed = Counter[str](), Counter[str]()
    for (task, _), row in results.rows.items():
        samples[task] += 1
        passed[task] += bool(row["passed"])
    return {task: (samples[task], passed[task]) for task in sorted(samples)}


def _ks(config: EvalConfig, counts: dict[str, tuple[int, int]]) -> tuple[int, ...]:
    fewest, task = min((n, task) for task, (n, _) in counts.items())
    ks = config.reported_k(fewest)
    if max(ks) > fewest:
        raise UserError(
            f"pass@{max(ks)} needs {max(ks)} samples of each problem, and {task} has {fewest}",
            where="eval.k",
            fix=f"ask for k of at most {fewest}, or score more samples",
        )
    return ks


def summarize(
    config: EvalConfig, benchmark: Benchmark, results: Journal, ungradable: dict[str, str], simulator: str, sandbox: str
) -> dict[str, Any]:
    """What summary.json says; UserError where a wanted k is beyond some problem's samples."""
    counts = _counts(results)
    categories = Counter(row["category"] for row in results.rows.values())
    missing = [p.task_id for p in benchmark.problems if p.task_id not in counts]
    return figures(config, counts, ungradable) | {
        "benchmark": benchmark.name,
        "benchmark_digest": benchmark.digest,
        "extract": config.extract,
        "simulator": simulator,
        "sandbox": sandbox,
        "categories": {name: categories[name] for name in CATEGORIES},
        "per_problem": {task: passed for task, (_, passed) in counts.items()},
        "per_problem_samples": {task: n for task, (n, _) in counts.items()},
        "ungradable": ungradable,
        "unattempted": missing,
    }


def figures(config: EvalConfig, counts: dict[str, tuple[int, int]], ungradable: dict[str, str]) -> dict[str, Any]:
    """What follows from (samples, passed) of each problem: pass@k, over all and over those that can be graded."""
    ks = _ks(config, counts)
    over_all = statistics.summarize(counts, ks, lambda task: True)
    return over_all | {"gradable": statistics.summarize(counts, ks, lambda task: task not in ungradable)}


def score_metrics(summary: dict[str, Any]) -> dict[str, Any]:
    """pass@k as a run's record has them."""
    return {
        **{name: value for name, value in summary.items() if name.startswith("pass@") or name == "pass_rate"},
        **{f"gradable_{name}": value for name, value in summary["gradable"].items() if name.startswith("pass@")},
    }


def metrics_of(summary: dict[str, Any], samples: Journal) -> dict[str, Any]:
    """The flat figures of a run for its record; tokens as far as the server counted them."""
    requests = [row.get("request") or {} for row in samples.rows.values()]
    tokens = [r["completion_tokens"] / r["choices"] for r in requests if r.get("completion_tokens") is not None]
    return {
        **score_metrics(summary),
        "gradable": summary["gradable"].get("problems", 0),
        "problems": summary["problems"],
        "samples": summary["samples"],
        "generated_tokens": round(sum(tokens)) if tokens else None,
        **{f"category_{name}": count for name, count in summary["categories"].items()},
    }
