"""`tapeout eval --self-test`: every reference through the installed simulator, before any model is asked."""

import asyncio
import re
from pathlib import Path
from typing import Any

from common.benchmark.problems import Benchmark, Problem
from common.files import write_json
from common.progress import bar, log
from eval.grade.simulate import Simulator, Verdict
from eval.grade.worker_pool import workers

SUMMARY = "summary.json"
WANTED_VERSION = 12
"""VerilogEval v2 asks for this iverilog; 11 (Debian 12) cannot grade a few of its problems."""


async def _references(benchmark: Benchmark, simulator: Simulator, at_once: int) -> list[Verdict]:
    with bar("self-test", len(benchmark.problems), "references") as progress:
        async with workers(simulator, min(at_once, len(benchmark.problems))) as pool:

            async def one(problem: Problem) -> Verdict:
                verdict = await pool.golden(problem)
                progress.advance()
                return verdict

            return list(await asyncio.gather(*map(one, benchmark.problems)))


def is_old(version: str) -> bool:
    found = re.search(r"(\d+)", version)
    return found is not None and int(found.group(1)) < WANTED_VERSION


def self_test(benchmark: Benchmark, simulator: Simulator, version: str, at_once: int, out: Path) -> dict[str, Any]:
    """Run every reference against itself; says which problems this simulator cannot grade, and why."""
    verdicts = asyncio.run(_references(benchmark, simulator, at_once))
    pairs = zip(benchmark.problems, verdicts, strict=True)
    ungradable = {problem.task_id: verdict.detail for problem, verdict in pairs if not verdict.passed}
    for task, why in ungradable.items():
        log(f"{task} cannot be graded by {version}: {why}")
    problems = len(benchmark.problems)
    log(f"{version} grades {problems - len(ungradable)} of {problems} problems")
    if ungradable and is_old(version):
        log(f"iverilog {WANTED_VERSION} or later grades more: the benchmark's designs are written for it")
    write_json(
        out / SUMMARY,
        {
            "benchmark": benchmark.name,
            "benchmark_digest": benchmark.digest,
            "problems": problems,
            "simulator": version,
            "ungradable": ungradable,
        },
    )
    return {"problems": problems, "gradable": problems - len(ungradable)}
