"""A stored score for another set of k: `python -m eval.score.rescore JOB.json`, JOB = {"run": DIR, "config": {...}}.

pass@k follows from how many samples of each problem passed, so nothing is asked for or simulated again. Replaces
summary.json and prints the run's metrics with the new figures.
"""

import sys
from pathlib import Path
from typing import Any

from common.answer import answer
from common.files import read_json, write_json
from eval.config import EvalConfig
from eval.score.gate import SUMMARY, read_summary
from eval.score.summary import figures, score_metrics

METRICS = "metrics.json"


def rescored(summary: dict[str, Any], config: EvalConfig) -> dict[str, Any]:
    """The summary with pass@k of the configuration's k; UserError for a k beyond some problem's samples."""
    samples = summary["per_problem_samples"]
    counts = {task: (samples[task], passed) for task, passed in summary["per_problem"].items()}
    kept = {name: value for name, value in summary.items() if not name.startswith("pass@")}
    return kept | figures(config, counts, summary["ungradable"])


def rescore(run: Path, config: EvalConfig) -> dict[str, Any]:
    """Replace the run's summary; returns its metrics, in which nothing but pass@k has changed."""
    summary = rescored(read_summary(str(run)), config)
    metrics = {name: value for name, value in read_json(run / METRICS).items() if "pass@" not in name}
    metrics |= score_metrics(summary)
    write_json(run / SUMMARY, summary)
    write_json(run / METRICS, metrics)
    return metrics


if __name__ == "__main__":
    sys.exit(answer(lambda job: rescore(Path(job["run"]), EvalConfig.model_validate(job["config"]))))
