"""What a run leaves when the machine fails it, and what hostile designs cost their neighbours."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.benchmark.layouts import load_benchmark
from eval.config import EvalConfig, EvalInputs
from eval.grade.simulate import Simulator, Verdict
from eval.grade.worker_pool import workers
from eval.sandbox.run import MIB, Limits, find_confinement
from eval.stage import first_error, run

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("Prob001_register", "Prob002_sum")
EVALUATE = [sys.executable, "-m", "eval"]


def _stored(folder: Path, solve: Callable[[str], str], times: int) -> Path:
    lines = [json.dumps({"task_id": task, "completion": solve(task)}) + "\n" for task in TASKS for _ in range(times)]
    (folder / "stored.jsonl").write_text("".join(lines))
    return folder / "stored.jsonl"


def _on_a_small_disk(disk: Path, size: str, script: str, job: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    disk.mkdir()
    inner = f'mount -t tmpfs -o size={size} tmpfs "{disk}" && mkdir -p "{disk}/out" && {script}'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", inner, "sh", *EVALUATE, str(job)]
    known = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=300, check=False)


def _job(folder: Path, benchmark: Path, stored: Path, out: Path) -> Path:
    config = {"benchmark": str(benchmark), "completions": str(stored), "simulators": 2}
    (folder / "job.json").write_text(json.dumps({"config": config, "inputs": {}, "out": str(out)}))
    return folder / "job.json"


def test_a_full_disk_keeps_what_was_found(benchmark_folder: Path, tmp_path: Path, solve: Callable[[str], str]) -> None:
    """The samples fit, not all of their results; with more room the same command counts every sample once."""
    stored, disk, times = _stored(tmp_path, solve, 40), tmp_path / "disk", 40
    job = _job(tmp_path, benchmark_folder, stored, disk / "out")
    kept = f'cp "{disk}/out/results.jsonl" "{tmp_path}/kept.jsonl"'
    room = f'mount -o remount,size=1m "{disk}" && "$@" && cp "{disk}/out/results.jsonl" "{tmp_path}/whole.jsonl"'
    samples = sum(len(line) + len(', "sample": 10') for line in stored.read_text().splitlines())
    size = f"{(samples // 4096 + 3) * 4}k"
    done = _on_a_small_disk(disk, size, f'{{ "$@"; echo "code $?"; {kept}; {room}; }}', job)
    assert "code 2" in done.stdout and "the disk is full" in done.stderr and "Traceback" not in done.stderr
    first = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().split("\n")[:-1]]
    whole = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text().splitlines()]
    assert done.returncode == 0 and 0 < len(first) < 2 * times
    assert [(row["task_id"], row["sample"]) for row in whole] == [(task, i) for task in TASKS for i in range(times)]
    assert all(row in whole for row in first) and all(row["passed"] for row in whole)


def test_a_full_disk_under_the_simulator_is_no_verdict(
    benchmark_folder: Path, tmp_path: Path, solve: Callable[[str], str]
) -> None:
    (tmp_path / "out").mkdir()
    job = _job(tmp_path, benchmark_folder, _stored(tmp_path, solve, 2), tmp_path / "out")
    disk = tmp_path / "disk"
    done = _on_a_small_disk(disk, "8k", '"$@"', job, TMPDIR=str(disk))
    assert done.returncode == 2 and "the disk is full" in done.stderr, done.stderr
    assert not any(json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines())


def test_the_same_twice_is_the_same(
    benchmark_folder: Path, tmp_path: Path, solve: Callable[[str], str], top: Callable[[str], str]
) -> None:
    bad = ["no", top("assign nonsense"), top("always @(posedge clk) q <= d + 1;"), top("initial $finish;")]
    lines = [{"task_id": task, "completion": text} for task in TASKS for text in (solve(task), *bad)]
    (tmp_path / "stored.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = EvalConfig(benchmark=str(benchmark_folder), completions=str(tmp_path / "stored.jsonl"))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        run(config, EvalInputs(), tmp_path / name)
    for name in ("samples.jsonl", "results.jsonl", "summary.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


HOSTILE = (
    "initial while (1) ;",
    'initial forever $display("%0d", {100{32\'hffffffff}});',
    "reg [999999999:0] big; initial big = ~big; always @(posedge clk) big <= big + 1;",
    "genvar i; generate for (i = 0; i < 1000000000; i++) begin : g reg r; end endgenerate",
)


def test_the_hostile_fail_alone(benchmark_folder: Path, solve: Callable[[str], str], top: Callable[[str], str]) -> None:
    """Four of them among honest designs that share two workers with them: each of those still gets its verdict."""
    problem = load_benchmark(str(benchmark_folder)).by_id[TASKS[0]]
    simulator = Simulator(find_confinement(), Limits(seconds=5.0, memory=512 * MIB))
    good = solve(problem.task_id)
    texts = [text for body in HOSTILE for text in (top(body), *[good] * 5)]

    async def grade() -> list[Verdict]:
        async with workers(simulator, 2) as pool:
            golden = await pool.golden(problem)
            return await asyncio.gather(*(pool.grade(problem, text, golden) for text in texts))

    found = asyncio.run(grade())
    assert [verdict.passed for verdict in found] == [text == good for text in texts]


def test_workers_that_are_killed_are_nobodys_verdict(
    benchmark_folder: Path, solve: Callable[[str], str], top: Callable[[str], str]
) -> None:
    """Workers and launchers die while golden runs and samples are under way: every verdict is as it would have been."""
    problems = load_benchmark(str(benchmark_folder)).by_id
    texts = [(task, text) for task in TASKS for text in (solve(task), top("always @* q = 0;"))] * 3

    async def grade() -> list[Verdict]:
        async with workers(Simulator(find_confinement(), Limits(seconds=30.0)), 2) as pool:
            ended = asyncio.Event()

            async def murder() -> None:
                for turn in range(4):
                    await asyncio.sleep(0.15)
                    worker = pool.all[turn % 2].pid
                    starters = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
                    os.kill(int(starters[0]) if turn % 2 and starters else worker, signal.SIGKILL)
                ended.set()

            async def one(task: str, text: str) -> Verdict:
                return await pool.grade(problems[task], text, await pool.golden(problems[task]))

            killer = asyncio.create_task(murder())
            found: list[Verdict] = []
            while not ended.is_set():
                found = await asyncio.gather(*(one(task, text) for task, text in texts))
                assert [v.category for v in found] == ["passed", "mismatch"] * (len(texts) // 2)
            await killer
            return found

    assert asyncio.run(grade())


MARK = "the_one_whose_workers_die"


def _grading(worker: int, folder: str) -> str:
    """The design that a worker has in its own folder below `folder`; empty where it has none."""
    for link in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(OSError):
            own = link.readlink()
            if own.is_relative_to(folder):
                return "".join(path.read_text() for path in own.glob("*/design.sv"))
    return ""


@pytest.mark.parametrize("spared", ["the others", "nobody"])
def test_a_text_that_ends_every_worker_stops_no_one_else(
    spared: str, benchmark_folder: Path, solve: Callable[[str], str], top: Callable[[str], str]
) -> None:
    """Whoever grades it is killed, time and again: it fails alone, unless the reference's workers die, too."""
    problem = load_benchmark(str(benchmark_folder)).by_id[TASKS[0]]
    good, fatal = solve(problem.task_id), top(f"wire {MARK}; initial while (1) ;")

    async def grade() -> list[Verdict]:
        async with workers(Simulator(find_confinement(), Limits(seconds=60.0)), 2) as pool:
            golden = await pool.golden(problem)
            dying = False

            async def murder() -> None:
                nonlocal dying
                while True:
                    await asyncio.sleep(0.02)
                    for worker in [process.pid for process in pool.all if process.returncode is None]:
                        with contextlib.suppress(OSError):
                            its_turn = MARK in _grading(worker, pool.folder)
                            dying = dying or its_turn
                            if its_turn or (dying and spared == "nobody"):
                                os.kill(worker, signal.SIGKILL)

            killer = asyncio.create_task(murder())
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                graded = [group.create_task(pool.grade(problem, text, golden)) for text in (fatal, good) * 2]
            killer.cancel()
            return [task.result() for task in graded]

    if spared == "nobody":
        with pytest.raises(ExceptionGroup) as stopped:
            asyncio.run(grade())
        assert "no verdict is given" in str(first_error(stopped.value))
        return
    found = asyncio.run(grade())
    assert [verdict.category for verdict in found] == ["runtime", "passed"] * 2
    assert "each worker that graded this text died" in found[0].detail


def test_nobody_waits_for_the_hostile(
    benchmark_folder: Path, solve: Callable[[str], str], top: Callable[[str], str]
) -> None:
    """One runs for as long as it may, ten minutes, on one of two workers: the honest are through before it ends."""
    problem = load_benchmark(str(benchmark_folder)).by_id[TASKS[0]]

    async def grade() -> tuple[list[Verdict], bool]:
        async with workers(Simulator(find_confinement(), Limits(seconds=600.0)), 2) as pool:
            golden = await pool.golden(problem)
            hostile = asyncio.create_task(pool.grade(problem, top(HOSTILE[0]), golden))
            found = [await pool.grade(problem, solve(problem.task_id), golden) for _ in range(5)]
            over = hostile.done()
            hostile.cancel()
            return found, over

    found, over = asyncio.run(grade())
    assert all(verdict.passed for verdict in found) and not over


def test_simulation_does_not_wait_for_the_last_completion(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Any, solve: Callable[[str], str]
) -> None:
    """The server holds its second answer back until the verdicts of the first are on disk."""
    seen: list[int] = []

    def hold() -> None:
        while len(behaviour.payloads) > 1 and len(seen) < 1000 and not any(seen):
            time.sleep(0.05)
            seen.append(len((tmp_path / "results.jsonl").read_text().splitlines()))

    behaviour = behave(lambda payload, _: solve(next(t for t in TASKS if t in payload["messages"][0]["content"])))
    behaviour.delay = hold
    folder = shutil.copytree(benchmark_folder, tmp_path / "two", ignore=shutil.ignore_patterns("Prob003*"))
    with serve_openai(behaviour) as url:
        config = EvalConfig(benchmark=str(folder), samples=2, concurrency=1)
        metrics = run(config, EvalInputs(endpoint=url, model="m"), tmp_path)
    assert metrics["pass@1"] == 1.0 and seen[-1] > 0
