"""The closing step: ask `eval.gate`, in a process of its own, whether a stored score counts as a regression."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import EXIT_USER_ERROR, UserError
from common.files import read_json, write_json
from common.progress import log
from eval.config import GateConfig
from pipeline.children import ChildFailed
from pipeline.gate_report import write_reports
from pipeline.recipe import validate
from pipeline.records import RECORD
from pipeline.source import Source

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Verdict:
    """`text` says why, for people; `comparison` holds the figures, where there was a baseline; `raw` is the whole."""

    passed: bool
    text: str
    comparison: dict[str, Any] | None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class More:
    """Where further samples come from, how many a problem, and where they are kept."""

    endpoint: str | None
    model: str | None
    samples: int
    out: Path | None


def ask(module: str, job: dict[str, Any], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` on a job; its standard output is the answer, its standard error the user's."""
    with tempfile.TemporaryDirectory(prefix="tapeout-") as folder:
        place = Path(folder) / "job.json"
        write_json(place, job)
        command = [sys.executable, "-m", module, str(place)]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=False)


def judge(run: Path, baseline: Path | None, config: dict[str, Any], env: dict[str, str]) -> Verdict:
    """Raises ChildFailed where the question cannot be answered; the process has then said why."""
    job = {"run": str(run), "baseline": str(baseline) if baseline else None, "config": config}
    answer = ask("eval.gate", job, env)
    if answer.returncode not in (0, 1) or not answer.stdout:
        raise ChildFailed("gate", answer.returncode if answer.returncode not in (0, 1) else EXIT_USER_ERROR)
    found = json.loads(answer.stdout)
    return Verdict(found["passed"], found["text"], found["comparison"], found)


def gate_runs(
    run: str,
    baseline: str | None,
    given: dict[str, Any],
    assignments: Sequence[str],
    debug: bool,
    more: More = More(None, None, 10, None),
    junit: Path | None = None,
    markdown: Path | None = None,
) -> int:
    """`tapeout gate`: judge one stored score against another; returns the exit code."""
    source = Source("the options of tapeout gate", given | {"baseline": None})
    for assignment in assignments:
        source.set(assignment.removeprefix("eval.gate.").removeprefix("gate."))
    config = validate(GateConfig, source, Path.cwd())
    against = find_score(baseline, "eval") if baseline else None
    env = dict(os.environ) | {"TAPEOUT_DEBUG": "1" if debug else "0"}
    place = find_score(run, "eval")
    verdict = judge(place, against, config.model_dump(mode="json"), env)
    if against is not None and verdict.raw["undecided"]:
        verdict = _with_more(place, against, verdict, config, more, env)
    print(verdict.text)
    write_reports(verdict.raw, junit, markdown)
    return 0 if verdict.passed else 1


def _with_more(
    run: Path, baseline: Path, verdict: Verdict, config: GateConfig, more: More, env: dict[str, str]
) -> Verdict:
    """Judge again with further samples; without a server to ask, the verdict stays, and fails."""
    if not (more.endpoint and more.model):
        log("on_noise is more_samples, and no --endpoint and --model were given to draw them from: it counts as failed")
        return verdict
    print(verdict.text)
    record = read_record(run)
    out = more.out or run.parent / f"{run.name}.more"
    summary = baseline / SUMMARY if baseline.is_dir() else baseline
    job = {
        "run": str(run),
        "out": str(out),
        "config": record["config"] | {"completions": None},
        "baseline": read_json(summary),
        "endpoint": more.endpoint,
        "model": more.model,
        "more": more.samples,
    }
    answer = ask("eval.more", job, env)
    if answer.returncode:
        raise ChildFailed("gate", answer.returncode)
    settled = config.model_copy(update={"on_noise": "fail"})
    return judge(out, baseline, settled.model_dump(mode="json"), env)


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


def find_score(place: str, step: str) -> Path:
    """A summary, a folder that eval wrote, or a recipe's folder: then its latest score."""
    path = Path(place)
    if path.is_file() or (path / SUMMARY).is_file():
        return path
    stored = [(read_json(record)["ended"], record.parent) for record in path.glob(f"{step}/*/{RECORD}")]
    if not stored:
        fix = "name a recipe's folder under runs, a folder that eval wrote, or a summary.json"
        raise UserError("no score here", where=place, fix=fix)
    return max(stored)[1]
