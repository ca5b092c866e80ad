"""More samples beside a run's own: drawn, graded and told of as the run itself does."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from eval.config import EvalConfig, EvalInputs
from eval.resample import draw_more
from eval.stage import run

MIXED = "Prob002_sum"


def test_more_samples_are_checked_and_told_of_as_the_first_were(
    benchmark_folder: Path,
    tmp_path: Path,
    behave: Any,
    serve_openai: Callable[[Any], AbstractContextManager[str]],
    solve: Callable[[str], str],
) -> None:
    config = EvalConfig(benchmark=str(benchmark_folder), samples=2, k=(1,), max_tokens=8)
    behaviour = behave(lambda payload, i: solve(MIXED) if i == 0 else "no")
    with serve_openai(behaviour) as url:
        (tmp_path / "run").mkdir()
        run(config, EvalInputs(endpoint=url, model="m"), tmp_path / "run")
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert summary["per_problem"][MIXED] == 1
        job = {"run": str(tmp_path / "run"), "out": str(tmp_path / "more"), "config": config.model_dump(), "more": 2}
        job |= {"baseline": summary, "endpoint": url, "model": "m"}
        behaviour.models, behaviour.count = {"data": [{"id": "m", "max_model_len": 10}]}, lambda messages: 9
        asked = len(behaviour.payloads)
        with pytest.raises(UserError, match="max_tokens"):
            draw_more(job)
        assert len(behaviour.payloads) == asked
        behaviour.models = None
        behaviour.reply = lambda payload: (200, {"choices": [{"index": 0, "message": {"content": None}}]})
        draw_more(job)
    joint = json.loads((tmp_path / "more" / "summary.json").read_text())
    assert joint["per_problem_samples"][MIXED] == 4 and joint["per_problem"][MIXED] == 1
    assert joint["empty_answers"] == {"null": 2} and joint["prompts_digest"] == summary["prompts_digest"]
