"""`tapeout gate`: judge one stored score against another, and report."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.config import GateConfig
from pipeline.cli.options import say
from pipeline.recipe.schema import validate
from pipeline.recipe.source import Source
from pipeline.report.gate_report import write_reports
from pipeline.run.gate import find_score, judge
from pipeline.run.gate_more import More, settle


def gate_runs(
    run: str,
    baseline: str | None,
    given: dict[str, Any],
    assignments: Sequence[str],
    debug: bool,
    more: More,
    junit: Path | None,
    markdown: Path | None,
) -> int:
    """`tapeout gate`: judge one stored score against another; returns the exit code."""
    source = Source("the options of tapeout gate", given | {"baseline": None})
    for assignment in assignments:
        source.set(assignment.removeprefix("eval.gate.").removeprefix("gate."))
    config = validate(GateConfig, source, Path.cwd())
    against = find_score(baseline, "eval") if baseline else None
    env = dict(os.environ) | {"TAPEOUT_DEBUG": "1" if debug else "0"}
    score = find_score(run, "eval")
    asked = config.model_dump(mode="json")
    verdict = judge(score, against, asked, env)
    if against is not None and verdict.raw["undecided"]:
        say(verdict.text)
        verdict = settle(score, against, verdict, asked, more, env)
    say(verdict.text)
    write_reports(verdict.raw, junit, markdown)
    return 0 if verdict.passed else 1
