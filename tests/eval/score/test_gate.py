"""The gate as CI uses it: a process with an exit code, and as a function."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from eval.config import GateConfig
from eval.score.gate import gate


def _summary(passed: list[int], n: int = 5, **more: Any) -> dict[str, Any]:
    tasks = [f"t{i:03}" for i in range(len(passed))]
    return {
        "benchmark": "b",
        "benchmark_digest": "d",
        "pass@1": sum(passed) / (n * len(passed)),
        "per_problem": dict(zip(tasks, passed, strict=True)),
        "per_problem_samples": dict.fromkeys(tasks, n),
        "unattempted": [],
    } | more


GOOD, WORSE = _summary([4] * 40), _summary([2] * 40)
NOISY = _summary([5, 3] * 19 + [0, 2])


@pytest.mark.parametrize(
    ("summary", "baseline", "config", "passes"),
    [
        (GOOD, None, GateConfig(min=0.8), True),
        (GOOD, None, GateConfig(min=0.81), False),
        (WORSE, GOOD, GateConfig(), False),
        (WORSE, GOOD, GateConfig(min=0.1), False),
        (GOOD, WORSE, GateConfig(), True),
        (GOOD, GOOD, GateConfig(), True),
        (WORSE, GOOD, GateConfig(max_drop=0.4), True),
        (WORSE, GOOD, GateConfig(max_drop=0.39), False),
        (WORSE, GOOD, GateConfig(max_drop=0.39, on_noise="pass"), False),
        (GOOD, WORSE, GateConfig(max_drop=0.0), True),
        (NOISY, GOOD, GateConfig(max_drop=0.0, on_noise="pass"), True),
        (NOISY, GOOD, GateConfig(max_drop=0.0, on_noise="fail"), False),
        (GOOD, WORSE, GateConfig(min=0.9, max_drop=0.0), False),
        (_summary([5], unattempted=["t9"]), None, GateConfig(), False),
    ],
)
def test_verdicts(summary: dict[str, Any], baseline: dict[str, Any] | None, config: GateConfig, passes: bool) -> None:
    verdict = gate(summary, baseline, config)
    assert verdict.passed is passes and verdict.exit_code == (0 if passes else 1)
    assert verdict.text.startswith("gate: passed" if passes else "gate: FAILED")


def test_a_drop_needs_a_baseline() -> None:
    with pytest.raises(UserError, match="no baseline"):
        gate(GOOD, None, GateConfig(max_drop=0.1))
    with pytest.raises(UserError, match="nothing to hold the score against"):
        gate(GOOD, None, GateConfig())


def test_any_k_is_judged_by_pass_at_1() -> None:
    fives = {name: value for name, value in GOOD.items() if name != "pass@1"} | {"pass@5": 1.0}
    assert not gate(fives, None, GateConfig(min=0.81)).passed and gate(fives, None, GateConfig(min=0.8)).passed


def _process(tmp_path: Path, run: Path, baseline: Path | None, **config: Any) -> subprocess.CompletedProcess[str]:
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"run": str(run), "baseline": str(baseline) if baseline else None, "config": config}))
    return subprocess.run(
        [sys.executable, "-m", "eval.score.gate", str(job)], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_process_answers_with_json_and_an_exit_code(tmp_path: Path) -> None:
    run, saved = tmp_path / "run", tmp_path / "baseline.json"
    run.mkdir()
    (run / "summary.json").write_text(json.dumps(WORSE))
    saved.write_text(json.dumps(GOOD))
    failed = _process(tmp_path, run, saved, max_drop=0.1)
    assert failed.returncode == 1 and json.loads(failed.stdout)["comparison"]["difference"] == pytest.approx(-0.4)
    passed = _process(tmp_path, run, None, min=0.1)
    assert passed.returncode == 0 and json.loads(passed.stdout)["passed"] is True
    absent = _process(tmp_path, tmp_path / "nothing", None)
    assert absent.returncode == 2 and "no score here" in json.loads(absent.stdout)["error"]["what"]
