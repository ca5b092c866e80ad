"""The gate: does a score count as a regression? A pure function, and a process for the conductor and for CI.

`python -m eval.score.gate JOB.json`, JOB = {"run": DIR, "baseline": DIR or null, "config": {...GateConfig}}: prints one
JSON object on standard output and exits with 0 (passed), 1 (failed) or 2 (no answer: the object is {"error": ...}).
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.answer import answer
from common.errors import EXIT_USER_ERROR, UserError
from common.files import read_json
from eval.config import GateConfig
from eval.score.compare import Comparison, compare
from eval.score.statistics import mean_pass_at_k

SUMMARY = "summary.json"
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Judgement:
    """`lines` says why, for people; `checks` says which of `min` and `max_drop` were asked for and held. `undecided`:
    noise could explain the drop, and `more_samples` is how the configuration wants that settled."""

    passed: bool
    lines: tuple[str, ...]
    comparison: Comparison | None = None
    checks: tuple[tuple[str, bool], ...] = ()
    undecided: bool = False

    @property
    def exit_code(self) -> int:
        return 0 if self.passed else 1

    @property
    def text(self) -> str:
        return "\n".join([f"gate: {'passed' if self.passed else 'FAILED'}", *(f"  {line}" for line in self.lines)])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"text": self.text, "exit_code": self.exit_code}


def pass_at_1(summary: dict[str, Any]) -> float:
    """Whatever k the run reports."""
    samples = summary["per_problem_samples"]
    return mean_pass_at_k([(samples[task], passed) for task, passed in summary["per_problem"].items()], 1)


def _floor(summary: dict[str, Any], config: GateConfig) -> tuple[bool, list[str]]:
    if config.min is None:
        return True, []
    score = pass_at_1(summary)
    good = score >= config.min - _ROUNDING
    return good, [f"pass@1 {score:.3f} is {'at least' if good else 'BELOW'} the minimum {config.min:.3f}"]


def _drop(found: Comparison, config: GateConfig) -> tuple[bool, list[str], bool]:
    sure = f"{config.confidence:.0%}"
    lines = [
        f"pass@1 {found.run:.3f} against the baseline's {found.baseline:.3f}: {found.difference:+.3f}",
        f"{sure} interval of the difference: {found.low:+.3f} to {found.high:+.3f}, from {found.problems} problems",
        f"probability of a regression: {found.regression_probability:.2f}",
        f"smallest difference that these problems could have shown: {found.smallest_effect:.3f}",
    ]
    if found.mcnemar is not None:
        lines.append(f"McNemar's exact test: p = {found.mcnemar:.3f}")
    allowed = config.max_drop or 0.0
    if -found.difference <= allowed + _ROUNDING:
        return True, lines, False
    noise = found.high >= -allowed
    lines.append(f"the drop is MORE than the {allowed:.3f} allowed")
    if noise:
        lines.append(f"noise alone could explain it at {sure}: on_noise is {config.on_noise}")
    return noise and config.on_noise == "pass", lines, noise and config.on_noise == "more_samples"


def gate(summary: dict[str, Any], baseline: dict[str, Any] | None, config: GateConfig) -> Judgement:
    """Judge a run's summary, by `min` and against a baseline, from which no drop passes unless `max_drop` allows it.

    UserError where there is nothing to hold the run against, and where the two cannot be compared.
    """
    if baseline is None and config.max_drop is not None:
        raise UserError(
            "max_drop is set, and there is no baseline to have dropped from",
            where="eval.gate.max_drop",
            fix="give a baseline, or gate on min alone",
        )
    if summary.get("unattempted"):
        count = len(summary["unattempted"])
        return Judgement(
            False, (f"{count} problems of the benchmark have no samples, {summary['unattempted'][0]} first",)
        )
    if baseline is None and config.min is None:
        raise UserError(
            "there is nothing to hold the score against",
            where="eval.gate",
            fix="give a baseline (--baseline RUN or a saved file), a lowest score (--min), or both",
        )
    passed, lines = _floor(summary, config)
    checks = [("min", passed)] if config.min is not None else []
    if baseline is None:
        return Judgement(passed, tuple(lines), None, tuple(checks))
    found = compare(summary, baseline, config.confidence)
    kept, more, undecided = _drop(found, config)
    checks.append(("max_drop", kept))
    return Judgement(passed and kept, (*lines, *more), found, tuple(checks), undecided and passed)


def read_summary(found: str) -> dict[str, Any]:
    """The summary of a run's folder, or a saved summary file. Raises UserError for anything else."""
    path = Path(found)
    path = path / SUMMARY if path.is_dir() else path
    try:
        summary = read_json(path)
    except FileNotFoundError:
        raise UserError("no score here", where=str(path), fix="name a folder that eval has written") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"not a summary: {error}", where=str(path), fix="name a folder that eval has written") from None
    if not isinstance(summary, dict) or "per_problem" not in summary:
        raise UserError("this is no score", where=str(path), fix="name the result of an eval, not of its self-test")
    return summary


def judge(job: dict[str, Any]) -> dict[str, Any]:
    """What is printed."""
    try:
        baseline = read_summary(job["baseline"]) if job.get("baseline") else None
        verdict = gate(read_summary(job["run"]), baseline, GateConfig.model_validate(job.get("config") or {}))
    except UserError as error:
        said = {"what": error.what, "where": error.where, "fix": error.fix}
        return {"error": said, "exit_code": EXIT_USER_ERROR}
    return verdict.as_dict()


if __name__ == "__main__":
    sys.exit(answer(judge, exit_code=lambda verdict: verdict["exit_code"]))
