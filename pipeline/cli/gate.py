"""`tapeout gate`: judge one stored score against another, and report; a question without an answer is reported, too."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from eval.config import GateConfig
from pipeline.recipe.schema import validate
from pipeline.recipe.source import Source
from pipeline.report.gate_report import write_error, write_reports
from pipeline.run.children import ChildFailed
from pipeline.run.gate import Judgement, judge
from pipeline.run.gate_more import More, settle
from pipeline.run.scores import find_score


@dataclass(frozen=True)
class Question:
    """Which score, against which, by which limits (`given` as flags, `assignments` as --set)."""

    run: str
    baseline: str | None
    given: dict[str, Any]
    assignments: Sequence[str]
    more: More
    debug: bool

    def config(self) -> GateConfig:
        source = Source("the options of tapeout gate", {**self.given, "baseline": None})
        for assignment in self.assignments:
            source.set(assignment.removeprefix("eval.gate.").removeprefix("gate."))
        return validate(GateConfig, source, Path.cwd())

    def answer(self) -> Judgement:
        """The verdict, which names what it is on; UserError or ChildFailed where there is none."""
        config = self.config().model_dump(mode="json")
        score = find_score(self.run, "eval")
        against = find_score(self.baseline, "eval") if self.baseline else None
        env = dict(os.environ) | {"TAPEOUT_DEBUG": "1" if self.debug else "0"}
        verdict = judge(score, against, config, env)
        if against is not None and verdict.raw["undecided"]:
            print(verdict.text)
            verdict = settle(score, against, verdict, config, self.more, env)
        return verdict.on(score, against)


def gate_runs(question: Question, junit: Path | None, markdown: Path | None) -> int:
    """The exit code: 0 passed, 1 failed. Where there is no answer, the reports say why before the error goes on."""
    try:
        verdict = question.answer()
    except (UserError, ChildFailed) as error:
        write_error(str(error), question.run, junit, markdown)
        raise
    write_reports(verdict.raw, junit, markdown)
    print(verdict.text)
    return 0 if verdict.passed else 1
