"""`kill -9` at random moments, of the evaluation or of anything it started: nothing is lost, left, or graded by it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes import descendants_of, left_of, said_by

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("Prob001_register", "Prob002_sum")
EACH, KILLS = 40, 40
VICTIMS = ("eval.grade.worker", "eval.sandbox.launcher", "iverilog", "vvp", "")
"""What is in the command line of who is killed; "" stands for the evaluation itself."""


def _kill_at_random(process: "subprocess.Popen[bytes]", draw: random.Random) -> list[str]:
    """Who was killed, one after the other, until the evaluation itself was or had ended; all below it are gone then."""
    killed, seen = list[str](), set[int]()
    while process.poll() is None:
        time.sleep(draw.uniform(0.05, 0.8))
        wanted, below = draw.choice(VICTIMS), descendants_of(process.pid)
        seen |= below
        found = [pid for pid in sorted(below) if wanted in said_by(pid)] if wanted else [process.pid]
        if found:
            with suppress(ProcessLookupError):
                os.kill(draw.choice(found), signal.SIGKILL)
                killed.append(wanted)
        if not wanted:
            process.wait()
    assert left_of(seen) == []
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_left_or_graded_by_a_kill(
    seed: int, tmp_path: Path, benchmark_folder: Path, top: Callable[[str], str], solve: Callable[[str], str]
) -> None:
    texts = [(solve(task), top("always @* q = 0;"), "prose")[i % 3] for task in TASKS for i in range(EACH)]
    keys = [(task, i) for task in TASKS for i in range(EACH)]
    stored, work, draw = tmp_path / "stored.jsonl", tmp_path / "work", random.Random(seed)
    lines = [json.dumps({"task_id": task, "completion": text}) for (task, _), text in zip(keys, texts, strict=True)]
    stored.write_text("".join(f"{line}\n" for line in lines))
    work.mkdir()
    killed, finished = list[str](), 0

    def run(out: Path) -> "subprocess.Popen[bytes]":
        out.mkdir(exist_ok=True)
        config = {"benchmark": str(benchmark_folder), "completions": str(stored), "simulators": 2}
        job = tmp_path / "job.json"
        job.write_text(json.dumps({"config": config, "inputs": {}, "out": str(out)}))
        env = {**os.environ, "TMPDIR": str(work)}
        return subprocess.Popen(
            [sys.executable, "-m", "eval", str(job)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    while True:
        out = tmp_path / f"out{finished}"
        process = run(out)
        killed += _kill_at_random(process, draw) if len(killed) < KILLS else []
        said = process.communicate(timeout=300)[0].decode()
        if process.returncode == -signal.SIGKILL:
            continue
        assert process.returncode == 0, said
        finished += 1
        rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        assert sorted((row["task_id"], row["sample"]) for row in rows) == keys
        by_key = {(row["task_id"], row["sample"]): row["category"] for row in rows}
        assert [by_key[key] for key in keys] == [("passed", "mismatch", "no_module")[i % 3] for _, i in keys], killed
        assert os.listdir(work) == []
        if len(killed) >= KILLS:
            break
    assert {"eval.grade.worker", "eval.sandbox.launcher", ""} <= set(killed)
