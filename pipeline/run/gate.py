"""The closing step: ask `eval.score.gate`, in a process of its own, whether a stored score counts as a regression."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import EXIT_USER_ERROR, UserError
from common.files import read_json
from pipeline.run.children import ChildFailed, ask
from pipeline.run.records import RECORD

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Judgement:
    """`text` says why, for people; `comparison` holds the figures, where there was a baseline; `raw` is the whole."""

    passed: bool
    text: str
    comparison: dict[str, Any] | None
    raw: dict[str, Any] = field(default_factory=dict)


def judge(run: Path, baseline: Path | None, config: dict[str, Any], env: dict[str, str]) -> Judgement:
    """Raises ChildFailed where the question cannot be answered; the process has then said why."""
    job = {"run": str(run), "baseline": str(baseline) if baseline else None, "config": config}
    answer = ask("eval.score.gate", job, env)
    if (found := answer.said) is None:
        raise ChildFailed("gate", answer.code if answer.code not in (0, 1) else EXIT_USER_ERROR)
    return Judgement(found["passed"], found["text"], found["comparison"], found)


def read_record(run: Path) -> dict[str, Any]:
    """The record beside a score; UserError for a score without one."""
    record = run / RECORD
    if not record.is_file():
        raise UserError(
            "this score has no record of how it came about",
            where=str(record),
            fix="name a folder that tapeout eval or tapeout run wrote",
        )
    return read_json(record)


def find_score(where: str, step: str) -> Path:
    """A summary, a folder that eval wrote, or a recipe's folder: then its latest score."""
    path = Path(where)
    if path.is_file() or (path / SUMMARY).is_file():
        return path
    stored = [(read_json(record)["ended"], record.parent) for record in path.glob(f"{step}/*/{RECORD}")]
    if not stored:
        fix = "name a recipe's folder under runs, a folder that eval wrote, or a summary.json"
        raise UserError("no score here", where=where, fix=fix)
    return max(stored)[1]
