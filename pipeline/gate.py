"""The closing step: ask `eval.gate`, in a process of its own, whether a stored score counts as a regression."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import EXIT_USER_ERROR, UserError
from common.files import read_json, write_json
from eval.config import GateConfig
from pipeline.children import ChildFailed
from pipeline.recipe import validate
from pipeline.records import RECORD
from pipeline.source import Source

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Verdict:
    """`text` says why, for people; `comparison` holds the figures, where there was a baseline."""

    passed: bool
    text: str
    comparison: dict[str, Any] | None


def judge(run: Path, baseline: Path | None, config: dict[str, Any], env: dict[str, str]) -> Verdict:
    """Raises ChildFailed where the question cannot be answered; the process has then said why."""
    with tempfile.TemporaryDirectory(prefix="tapeout-") as folder:
        job = Path(folder) / "job.json"
        write_json(job, {"run": str(run), "baseline": str(baseline) if baseline else None, "config": config})
        command = [sys.executable, "-m", "eval.gate", str(job)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=False)
    if answer.returncode not in (0, 1) or not answer.stdout:
        raise ChildFailed("gate", answer.returncode if answer.returncode not in (0, 1) else EXIT_USER_ERROR)
    found = json.loads(answer.stdout)
    return Verdict(found["passed"], found["text"], found["comparison"])


def gate_runs(run: str, baseline: str | None, given: dict[str, Any], assignments: Sequence[str], debug: bool) -> int:
    """`tapeout gate`: judge one stored score against another; returns the exit code."""
    source = Source("the options of tapeout gate", given | {"baseline": None})
    for assignment in assignments:
        source.set(assignment.removeprefix("eval.gate.").removeprefix("gate."))
    config = validate(GateConfig, source, Path.cwd())
    against = find_score(baseline, "eval") if baseline else None
    env = dict(os.environ) | {"TAPEOUT_DEBUG": "1" if debug else "0"}
    verdict = judge(find_score(run, "eval"), against, config.model_dump(mode="json"), env)
    print(verdict.text)
    return 0 if verdict.passed else 1


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
