"""The stage end to end: an HTTP server, real simulations, kill -9 and resumption, re-scoring, errors of users."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common import process
from common.errors import UserError
from eval.config import EvalConfig, EvalInputs
from eval.stage import run

Serve = Callable[[Any], AbstractContextManager[str]]
TASKS = ("Prob001_register", "Prob002_sum", "Prob003_parity")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def answer(solve: Callable[[str], str], top: Callable[[str], str]) -> Callable[[dict[str, Any], int], str]:
    """Problem 1 is always solved, problem 2 by even samples, problem 3 never, in four different ways."""

    def of(payload: dict[str, Any], index: int) -> str:
        task = next(t for t in TASKS if t in payload["messages"][0]["content"])
        bad = ["I cannot.", top("assign nonsense"), top("absent u();"), top("initial $finish;")][index]
        good = task == TASKS[0] or (task == TASKS[1] and index % 2 == 0)
        return f"<think>hm</think>\n```verilog\n{solve(task) if good else bad}```\n"

    return of


def _job(folder: Path, config: dict[str, Any], inputs: dict[str, Any]) -> Path:
    (folder / "out").mkdir(exist_ok=True)
    job = folder / "job.json"
    job.write_text(json.dumps({"config": config, "inputs": inputs, "out": str(folder / "out")}))
    return job


def _start(job: Path, **env: str) -> subprocess.Popen[bytes]:
    """As the conductor does: signals reach it whatever this process ignores."""
    return process.start("eval", job, with_parent=True, env={**os.environ, **env}, stderr=subprocess.PIPE)


def test_a_score_and_its_files(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve, answer: Any
) -> None:
    config = EvalConfig(benchmark=str(benchmark_folder), samples=4, k=(1, 2, 4), timeout_s=10)
    with serve_openai(behave(answer)) as url:
        metrics = run(config, EvalInputs(endpoint=url, model="m"), tmp_path)
    assert metrics["pass@1"] == pytest.approx(0.5) and metrics["pass@4"] == pytest.approx(2 / 3)
    assert metrics["pass@2"] == pytest.approx((1 + 5 / 6) / 3)
    assert (metrics["problems"], metrics["samples"], metrics["generated_tokens"]) == (3, 12, 84)
    results = _rows(tmp_path / "results.jsonl")
    assert [(r["task_id"], r["sample"]) for r in results] == [(t, i) for t in TASKS for i in range(4)]
    assert [r["category"] for r in results[8:]] == ["no_module", "syntax", "elaboration", "mismatch"]
    samples = _rows(tmp_path / "samples.jsonl")
    assert set(samples[0]) >= {"task_id", "sample", "seed", "completion", "finish_reason"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["per_problem"] == dict(zip(TASKS, (4, 2, 0), strict=True))
    assert summary["categories"]["passed"] == 6 and summary["simulator"].startswith("iverilog ")
    low, high = summary["intervals"]["pass_rate (Wilson)"]
    assert low < 0.5 < high


def test_kill_9_loses_and_doubles_nothing(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve, answer: Any
) -> None:
    config = {"benchmark": str(benchmark_folder), "samples": 4, "k": [1], "simulators": 1, "concurrency": 1}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    answered, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def hold() -> None:
        answered.release()
        assert go_on.acquire(timeout=60)

    with serve_openai(behave(answer)) as url:
        inputs = {"endpoint": url, "model": "m"}
        assert _finish(_start(_job(whole, config, inputs)))[0] == 0
    behaviour = behave(answer, delay=hold)
    with serve_openai(behaviour) as url:
        inputs = {"endpoint": url, "model": "m"}
        for _ in TASKS:
            stage = _start(_job(cut, config, inputs))
            assert answered.acquire(timeout=60)
            go_on.release()  # one answer goes through, and is written
            assert behaviour.payloads and _second_request_or_end(answered, stage)
            stage.kill()
            stage.communicate()
            go_on.release()  # the request that was cut off
            with (cut / "out" / "samples.jsonl").open("ab") as torn:
                torn.write(b'{"task_id": "Prob0')
        behaviour.delay = lambda: None
        go_on.release(10)
        assert _finish(_start(_job(cut, config, inputs)))[0] == 0
    for name in ("samples.jsonl", "results.jsonl", "summary.json"):
        assert (cut / "out" / name).read_text() == (whole / "out" / name).read_text()


def _second_request_or_end(answered: threading.Semaphore, stage: subprocess.Popen[bytes]) -> bool:
    while stage.poll() is None:
        if answered.acquire(timeout=0.05):
            return True
    return True


def _finish(stage: subprocess.Popen[bytes]) -> tuple[int, str]:
    said = stage.communicate(timeout=120)[1]
    return stage.returncode, said.decode()


def test_a_server_that_dies_on_the_way_costs_no_sample(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve, answer: Any
) -> None:
    config, inputs = {"benchmark": str(benchmark_folder), "samples": 4, "k": [1], "concurrency": 1}, {"model": "m"}
    behaviour = behave(answer, faults=[None, *[503] * 100])
    with serve_openai(behaviour) as url:
        job = _job(tmp_path, config, inputs | {"endpoint": url})
        code, said = _finish(_start(job))
        assert code == 2 and "HTTP 503" in said and "samples so far are kept" in said and "Traceback" not in said
        first = _rows(tmp_path / "out" / "samples.jsonl")
        assert len(first) == 4 and not (tmp_path / "out" / "summary.json").exists()
        behaviour.faults.clear()
        behaviour.payloads.clear()
        assert _finish(_start(job))[0] == 0
    assert len(behaviour.payloads) == 2 and all(row in _rows(tmp_path / "out" / "samples.jsonl") for row in first)
    keys = [(row["task_id"], row["sample"]) for row in _rows(tmp_path / "out" / "results.jsonl")]
    assert keys == [(task, i) for task in TASKS for i in range(4)]


def test_a_request_half_written_is_completed_alike(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve, answer: Any
) -> None:
    config = EvalConfig(benchmark=str(benchmark_folder), samples=4)
    with serve_openai(behave(answer)) as url:
        inputs = EvalInputs(endpoint=url, model="m")
        (tmp_path / "a").mkdir()
        run(config, inputs, tmp_path / "a")
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        for name in ("samples.jsonl", "results.jsonl"):
            lines = (tmp_path / "a" / name).read_bytes().splitlines(keepends=True)
            (tmp_path / "b" / name).write_bytes(b"".join(lines[3:6]) + lines[8] + lines[9][:20])
        run(config, inputs, tmp_path / "b")
    for name in ("samples.jsonl", "results.jsonl", "summary.json"):
        assert (tmp_path / "b" / name).read_text() == (tmp_path / "a" / name).read_text()


def test_ctrl_c_and_term_keep_what_is_there(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve, answer: Any
) -> None:
    config = {"benchmark": str(benchmark_folder), "samples": 4, "k": [1]}
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        folder = tmp_path / str(number)
        folder.mkdir()
        asked, release = threading.Event(), threading.Event()

        def hold(asked: threading.Event = asked, release: threading.Event = release) -> None:
            asked.set()
            release.wait(60)

        with serve_openai(behave(answer, delay=hold)) as url:
            stage = _start(_job(folder, config, {"endpoint": url, "model": "m"}))
            assert asked.wait(60)
            stage.send_signal(number)
            returned, said = _finish(stage)
            release.set()
        assert returned == code and "Traceback" not in said
        assert not (folder / "out" / "summary.json").exists()


def test_stored_completions_need_no_model(
    benchmark_folder: Path, tmp_path: Path, solve: Callable[[str], str], top: Callable[[str], str]
) -> None:
    stored = tmp_path / "completions.jsonl"
    lines = [
        (TASKS[0], solve(TASKS[0])),
        (TASKS[1], "no"),
        (TASKS[0], top("assign q = 1")),
        (TASKS[1], solve(TASKS[1])),
    ]
    stored.write_text("".join(json.dumps({"task_id": t, "completion": c, "extra": 1}) + "\n" for t, c in lines))
    metrics = run(EvalConfig(benchmark=str(benchmark_folder), completions=str(stored)), EvalInputs(), tmp_path)
    assert metrics["pass@1"] == 0.5 and "pass@5" not in metrics
    found = [(r["task_id"], r["sample"], r["passed"]) for r in _rows(tmp_path / "results.jsonl")]
    assert found == [(TASKS[0], 0, True), (TASKS[0], 1, False), (TASKS[1], 0, False), (TASKS[1], 1, True)]
    assert json.loads((tmp_path / "summary.json").read_text())["unattempted"] == [TASKS[2]]


@pytest.mark.parametrize(
    ("line", "message", "where"),
    [
        ('{"task_id": "Prob001_register"', "not a line of JSON", ":2"),
        ('{"task_id": "Prob001_register", "completion": null}', "needs task_id and completion", ":2"),
        ('{"task_id": "Prob999", "completion": ""}', "no problem of", ":2"),
        ('["Prob001_register", ""]', "needs task_id and completion", ":2"),
    ],
)
def test_bad_lines_are_placed(line: str, message: str, where: str, benchmark_folder: Path, tmp_path: Path) -> None:
    stored = tmp_path / "completions.jsonl"
    stored.write_text(json.dumps({"task_id": TASKS[0], "completion": ""}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message) as error:
        run(EvalConfig(benchmark=str(benchmark_folder), completions=str(stored)), EvalInputs(), tmp_path)
    assert error.value.where == f"{stored}{where}"


def test_k_beyond_the_samples(benchmark_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="k = 5 is more than samples = 2"):
        EvalConfig(benchmark="b", samples=2, k=(1, 5))
    assert EvalConfig(benchmark="b", samples=2).reported_k(2) == (1,)
    stored = tmp_path / "completions.jsonl"
    stored.write_text(json.dumps({"task_id": TASKS[0], "completion": ""}) + "\n")
    config = EvalConfig(benchmark=str(benchmark_folder), completions=str(stored), k=(1, 2))
    with pytest.raises(UserError, match="pass@2 needs 2 samples"):
        run(config, EvalInputs(), tmp_path)


def test_a_reference_that_fails_its_own_test_is_told_apart(
    benchmark_folder: Path, tmp_path: Path, solve: Callable[[str], str]
) -> None:
    folder = Path(shutil.copytree(benchmark_folder, tmp_path / "bench"))
    (folder / f"{TASKS[2]}_ref.sv").write_text("module RefModule (input a); unknown u(); endmodule\n")
    stored = tmp_path / "completions.jsonl"
    stored.write_text("".join(json.dumps({"task_id": t, "completion": solve(t)}) + "\n" for t in TASKS))
    metrics = run(EvalConfig(benchmark=str(folder), completions=str(stored)), EvalInputs(), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert metrics["pass@1"] == pytest.approx(2 / 3) and summary["gradable"]["pass@1"] == 1.0
    assert list(summary["ungradable"]) == [TASKS[2]]


def test_the_self_test_names_what_cannot_be_graded(benchmark_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(benchmark_folder, tmp_path / "bench"))
    reference = folder / f"{TASKS[1]}_ref.sv"
    reference.write_text(reference.read_text().replace("endmodule", "initial #3 $finish; endmodule"))
    (folder / f"{TASKS[2]}_ref.sv").write_text("module RefModule (input a); unknown u(); endmodule\n")
    config = EvalConfig(benchmark=str(folder), self_test=True)
    assert run(config, EvalInputs(), tmp_path) == {"problems": 3, "gradable": 1}
    ungradable = json.loads((tmp_path / "summary.json").read_text())["ungradable"]
    assert list(ungradable) == list(TASKS[1:]) and "elaboration" in ungradable[TASKS[2]]


def test_designs_that_break_the_parser_fail_alone(
    benchmark_folder: Path, tmp_path: Path, solve: Callable[[str], str], top: Callable[[str], str]
) -> None:
    stored = tmp_path / "completions.jsonl"
    doubling = (
        "".join(f"`define M{i} `M{i - 1} `M{i - 1}\n" for i in range(40, 0, -1)) + "`define M0 1\nassign q = `M40;"
    )
    deep = "assign q = " + "(" * 200_000 + "1" + ")" * 200_000 + ";"
    texts = [top(doubling), top(deep), "module TopModule " * 100_000, "```verilog\n" * 10_000, solve(TASKS[0])]
    stored.write_text("".join(json.dumps({"task_id": TASKS[0], "completion": text}) + "\n" for text in texts))
    config = EvalConfig(benchmark=str(benchmark_folder), completions=str(stored), timeout_s=5)
    assert run(config, EvalInputs(), tmp_path)["category_passed"] == 1
    assert [r["passed"] for r in _rows(tmp_path / "results.jsonl")] == [False] * 4 + [True]


def test_a_missing_simulator_is_told_before_anything_is_asked(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve, answer: Any
) -> None:
    behaviour = behave(answer)
    with serve_openai(behaviour) as url:
        job = _job(tmp_path, {"benchmark": str(benchmark_folder)}, {"endpoint": url, "model": "m"})
        code, said = _finish(_start(job, PATH=str(tmp_path)))
    assert code == 2 and "apt install iverilog" in said and "Traceback" not in said
    assert not behaviour.payloads and not (tmp_path / "out" / "samples.jsonl").exists()


def test_no_endpoint_is_told(benchmark_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no endpoint"):
        run(EvalConfig(benchmark=str(benchmark_folder)), EvalInputs(), tmp_path)
