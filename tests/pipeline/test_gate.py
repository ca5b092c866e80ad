"""`tapeout gate`, `tapeout baseline save`, `tapeout show`: the commands, on scores made by real runs of eval."""

import json
import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as xml
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "recipes" / "assets" / "starter" / "benchmark"
TASKS = ("Prob002_dff_2", "Prob029_and_or", "Prob033_gate_nand2_inv")


def _reference(task: str) -> str:
    return (STARTER / f"{task}_ref.sv").read_text().replace("RefModule", "TopModule")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    for task in TASKS:
        for suffix in ("_prompt.txt", "_ref.sv", "_test.sv"):
            (folder / (task + suffix)).write_text((STARTER / (task + suffix)).read_text())
    return folder


def _tapeout(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tapeout", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=dict(os.environ))


def _score(folder: Path, benchmark: Path, passed: dict[str, int], n: int = 4) -> Path:
    folder.mkdir()
    lines = [
        json.dumps({"task_id": task, "completion": _reference(task) if i < count else "no"})
        for task, count in passed.items()
        for i in range(n)
    ]
    (folder / "stored.jsonl").write_text("\n".join(lines))
    stored, out = folder / "stored.jsonl", folder / "out"
    done = _tapeout("eval", "--benchmark", benchmark, "--completions", stored, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def scores(benchmark: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that seems a little worse than its baseline: the same model, less lucky."""
    folder = tmp_path_factory.mktemp("scores")
    run = _score(folder / "run", benchmark, dict(zip(TASKS, (4, 1, 1), strict=True)))
    return run, _score(folder / "base", benchmark, dict(zip(TASKS, (4, 3, 0), strict=True)))


class _Solver(BaseHTTPRequestHandler):
    """An OpenAI-shaped server whose model solves every problem; it counts what it is asked."""

    asked: list[str]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = payload["messages"][-1]["content"]
        task = next(t for t in TASKS if (STARTER / f"{t}_prompt.txt").read_text() == said)
        self.asked.append(task)
        message = {"message": {"role": "assistant", "content": _reference(task)}, "finish_reason": "stop"}
        body = json.dumps({"choices": [message] * payload["n"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_baseline_is_one_file_and_holds(scores: tuple[Path, Path], tmp_path: Path) -> None:
    run, base = scores
    saved = tmp_path / "kept" / "baseline.json"
    assert _tapeout("baseline", "save", base, "--out", saved).returncode == 0
    kept = json.loads(saved.read_text())
    assert kept["pass@1"] == pytest.approx(7 / 12) and kept["from"]["fingerprint"]
    again = _tapeout("baseline", "save", base, "--out", saved)
    assert again.returncode == 2 and "--force" in again.stderr
    assert _tapeout("baseline", "save", base, "--out", saved, "--force").returncode == 0
    assert _tapeout("gate", run, "--baseline", saved, "--max-drop", "0.5").returncode == 0
    failed = _tapeout("gate", run, "--baseline", saved, "--max-drop", "0.01", "--on-noise", "fail")
    assert failed.returncode == 1 and "on_noise is fail" in failed.stdout
    assert _tapeout("gate", run, "--baseline", saved, "--max-drop", "0.01", "--on-noise", "pass").returncode == 0


def test_reports_for_machines(scores: tuple[Path, Path], tmp_path: Path) -> None:
    run, base = scores
    junit, markdown = tmp_path / "ci" / "gate.xml", tmp_path / "ci" / "gate.md"
    options = ("--junit", junit, "--markdown", markdown)
    done = _tapeout("gate", run, "--baseline", base, "--min", "0.9", "--max-drop", "0.5", *options)
    assert done.returncode == 1
    suite = xml.fromstring(junit.read_bytes())
    cases = {case.get("name"): case.find("failure") is not None for case in suite.iter("testcase")}
    assert cases == {"min": True, "max_drop": False} and suite.get("failures") == "1" and suite.get("tests") == "2"
    text = markdown.read_text()
    assert (
        text.startswith("### Eval gate: FAILED") and "| pass@1 | 0.500 |" in text and "| difference | -0.083 |" in text
    )
    assert f"- run: `{run}`" in text and f"- baseline: `{base}`" in text
    named = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert named == {"run": str(run), "baseline": str(base)} and f"  run: {run}\n  baseline: {base}" in done.stdout
    assert _tapeout("gate", run, "--min", "0.1", *options).returncode == 0
    assert "passed" in markdown.read_text() and xml.fromstring(junit.read_bytes()).get("failures") == "0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to hold the score against"),
        (("--max-drop", "0.1"), "no baseline to have dropped from"),
        (("--baseline", "nowhere"), "no score here"),
        (("--baseline", "{damaged}"), "not a summary"),
        (("--baseline", "{other}"), "different benchmarks"),
        (("--min", "2"), "must be less than or equal to 1"),
    ],
)
def test_no_answer_is_reported_too(
    scores: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    run, base = scores
    (tmp_path / "damaged.json").write_text("{")
    other = json.loads((base / "summary.json").read_text()) | {"benchmark_digest": "other", "benchmark": "\x1b[2J"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    places = {name: str(tmp_path / f"{name}.json") for name in ("damaged", "other")}
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    junit.write_text("yesterday's")
    done = _tapeout("gate", run, *(a.format(**places) for a in arguments), "--junit", junit, "--markdown", markdown)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr and not done.stdout
    suite = xml.fromstring(junit.read_bytes())
    error = suite.find("testcase/error")
    assert suite.get("errors") == "1" and error is not None and said in str(error.text)
    assert markdown.read_text().startswith("### Eval gate: could not be judged") and said in markdown.read_text()


def test_a_baseline_alone_lets_no_drop_pass(scores: tuple[Path, Path]) -> None:
    run, base = scores
    dropped = _tapeout("gate", run, "--baseline", base)
    assert dropped.returncode == 1 and "MORE than the 0.000 allowed" in dropped.stdout
    assert _tapeout("gate", base, "--baseline", run).returncode == 0
    assert _tapeout("gate", run, "--baseline", base, "--min", "0.1").returncode == 1, "min takes nothing back"


def test_a_recipes_folder_is_its_score_as_it_is_now(small: Path, tapeout: Callable[..., Any], tmp_path: Path) -> None:
    """Two recipes take turns under one name: what counts is which of them ran last, not which was scored last."""
    tasks = [path.name.removesuffix("_ref.sv") for path in sorted((tmp_path / "benchmark").glob("*_ref.sv"))]
    for name, passing in (("good", len(tasks)), ("bad", 1)):
        rows = [
            {"task_id": task, "sample": i, "completion": _reference(task) if number < passing else "no"}
            for number, task in enumerate(tasks)
            for i in range(2)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name: str, *more: str) -> str:
        done = tapeout("run", "small.yaml", "--from", "eval", "--set", f"eval.completions={name}.jsonl", *more)
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("good")
    gate = ("gate", "runs/small", "--min", "0.9")
    assert tapeout(*gate).returncode == 0
    run("bad")
    failed = tapeout(*gate)
    assert failed.returncode == 1
    assert "eval: kept" in run("good")
    passed = tapeout(*gate)
    assert passed.returncode == 0 and passed.stdout.splitlines()[-1] != failed.stdout.splitlines()[-1]
    current = passed.stdout.splitlines()[-1].removeprefix("  run: ")
    assert (tmp_path / current / "summary.json").is_file()
    saved = tapeout("baseline", "save", "runs/small")
    assert saved.returncode == 0 and current in saved.stderr and "pass@1 1.000" in saved.stderr
    assert tapeout("show", "runs/small", tasks[1]).stdout.startswith(f"run: {current}\n")

    again = run("good", "--set", "eval.k=[2]")
    assert "pass@k computed anew" in again and "eval: kept" in again and "pass@2" in again
    summary = json.loads((tmp_path / current / "summary.json").read_text())
    assert summary["pass@2"] == 1.0 and "pass@1" not in summary and "pass@1" not in summary["intervals"]
    record = json.loads((tmp_path / current / "record.json").read_text())
    assert record["config"]["k"] == [2] and record["metrics"]["pass@2"] == 1.0 and "pass@1" not in record["metrics"]
    assert tapeout(*gate).returncode == 0 and "anew" not in run("good", "--set", "eval.k=[2]")
    assert "anew" in run("good")

    (tmp_path / "small.yaml").write_text(small.read_text() + "  temperature: 0.1\n")
    assert "small.yaml has changed since it ran" in tapeout(*gate).stderr
    stopped = tapeout("run", "small.yaml", "--from", "eval", "--set", "eval.completions=rows.jsonl")
    assert stopped.returncode == 2
    unscored = tapeout(*gate)
    assert unscored.returncode == 2 and "has no score (eval) yet" in unscored.stderr and current in unscored.stderr
    (tmp_path / "runs" / "small" / "current.json").write_text("{")
    assert "2 scores" in tapeout(*gate).stderr


def test_noise_is_settled_by_more_samples(scores: tuple[Path, Path], tmp_path: Path) -> None:
    run, base = scores
    options = ("--baseline", base, "--max-drop", "0.01", "--on-noise", "more_samples")
    alone = _tapeout("gate", run, *options)
    assert alone.returncode == 1 and "no --endpoint" in alone.stderr
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    solver = type("Solver", (_Solver,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), solver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url, joint = f"http://127.0.0.1:{server.server_port}/v1", tmp_path / "joint"
        more = (*options, "--endpoint", url, "--model", "m", "--samples", 3, "--out", joint)
        settled = _tapeout("gate", run, *more)
        assert settled.returncode == 0, settled.stdout + settled.stderr
        assert solver.asked == [TASKS[1]] * 3, "only where the baseline was mixed"
        assert _tapeout("gate", run, *more).returncode == 0
        assert len(solver.asked) == 3, "what was drawn is not drawn again"
    finally:
        server.shutdown()
        server.server_close()
    summary = json.loads((joint / "summary.json").read_text())
    assert summary["per_problem_samples"] == dict(zip(TASKS, (4, 7, 4), strict=True))
    assert summary["per_problem"] == dict(zip(TASKS, (4, 4, 1), strict=True))
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_sample_is_shown(scores: tuple[Path, Path], benchmark: Path, tmp_path: Path) -> None:
    done = _tapeout("show", scores[0], "Prob002", "--svg", tmp_path / "waves.svg")
    assert "Prob002" in (tmp_path / "waves.svg").read_text() and not done.stderr
    assert done.returncode == 0 and "-- verdict\npassed" in done.stdout and "q_out_ref  q_out_dut" in done.stdout
    elsewhere = _tapeout("show", scores[0], "Prob029", "--sample", 3, "--benchmark", benchmark)
    assert elsewhere.returncode == 0 and "no_module" in elsewhere.stdout
    absent = _tapeout("show", scores[0], "Prob999")
    assert absent.returncode == 2 and "no such problem" in absent.stderr and "Traceback" not in absent.stderr


def test_flags_of_eval(benchmark: Path, tmp_path: Path) -> None:
    out = tmp_path / "self"
    done = _tapeout("eval", "--self-test", "--benchmark", benchmark, "--out", out)
    assert done.returncode == 0 and "grades 3 of 3 problems" in done.stderr
    refused = _tapeout("gate", out, "--min", "0.5")
    assert refused.returncode == 2 and "self-test" in refused.stderr
    both = _tapeout("eval", "quickstart", "--self-test")
    assert both.returncode == 2 and "--self-test" in both.stderr
    stored = tmp_path / "stored.jsonl"
    stored.write_text(json.dumps({"task_id": TASKS[1], "completion": _reference(TASKS[1])}))
    files = ("--benchmark", benchmark, "--completions", stored, "--out", tmp_path / "bare")
    bare = _tapeout("eval", *files, "--unsafe-no-sandbox")
    assert bare.returncode == 0 and "unconfined" in bare.stderr
    assert json.loads((tmp_path / "bare" / "summary.json").read_text())["sandbox"] == "none"


@pytest.mark.slow
def test_a_run_settles_its_own_noise(small: Path, tapeout: Callable[..., Any], tmp_path: Path) -> None:
    """The baseline is the run's own score with one pass more: noise may explain that, so its server is asked again."""
    done = tapeout("run", small)
    assert done.returncode == 0, done.stderr
    (score,) = (tmp_path / "runs" / "small" / "eval").glob("*/summary.json")
    summary = json.loads(score.read_text())
    mixed = next(task for task, passed in summary["per_problem"].items() if passed < 2)
    summary["per_problem"][mixed] += 1
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps(summary))
    settings = {"baseline": baseline, "max_drop": 0.0, "on_noise": "more_samples"}
    sets = [word for name, value in settings.items() for word in ("--set", f"eval.gate.{name}={value}")]
    before = score.read_bytes()
    first = tapeout("run", small, *sets)
    assert first.returncode in (0, 1) and "on_noise is more_samples" in first.stderr, first.stderr
    (joint,) = (tmp_path / "runs" / "small" / "eval").glob("*.more-2-*")
    samples = json.loads((joint / "summary.json").read_text())["per_problem_samples"]
    assert samples == summary["per_problem_samples"] | {mixed: 4}
    drawn = (joint / "samples.jsonl").read_bytes()
    again = tapeout("run", small, *sets)
    assert again.returncode == first.returncode and "drawing" in first.stderr and "drawing" not in again.stderr
    assert (joint / "samples.jsonl").read_bytes() == drawn and score.read_bytes() == before
