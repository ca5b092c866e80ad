"""How fast designs are graded against the floor, and what the sandbox costs, in wall time and in CPU time.

`python -m benchmarks.eval BENCHMARK [--problems N] [--samples N] [--rounds N]`. Floor: cores / mean time of bare
iverilog + vvp (the flags of the official Makefile) run one at a time, before and after ours in each round; since cores
that are all busy are slower each, bare runs on all of them at once are told too. CPU seconds count the processes of
each side, the parent included. References are graded, as if written by a model; the golden runs come before the clock
starts. `--neighbours`: see `benchmarks.grader.neighbours`, instead.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu import cpu_seconds
from benchmarks.grader import neighbours
from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Problem
from common.machine import cores
from eval.grade import harness, simulate
from eval.grade.simulate import Simulator, Verdict
from eval.grade.worker_pool import Workers, at_once, workers
from eval.sandbox.run import Limits, find_confinement
from eval.sandbox.run import run as confined

COMPILE = ("iverilog", "-Wall", "-Winfloop", "-Wno-timescale", "-g2012", "-s", "tb", "-o", "program")


@dataclass(frozen=True)
class Spent:
    """Seconds of wall and of CPU, of a number of designs."""

    wall: float
    cpu: float
    designs: int

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.wall + other.wall, self.cpu + other.cpu, self.designs + other.designs)

    @property
    def line(self) -> str:
        return f"{self.wall / self.designs * 1e3:.1f} ms wall, {self.cpu / self.designs * 1e3:.1f} ms CPU a design"


class Clock:
    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), cpu_seconds(os.getpid())

    def spent(self, designs: int) -> Spent:
        return Spent(time.perf_counter() - self.wall, cpu_seconds(os.getpid()) - self.cpu, designs)


def bare(problem: Problem, design: str) -> None:
    """Compile and run as the official Makefile does, with nothing around it."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("design.sv", design), ("test.sv", problem.test), ("ref.sv", problem.reference)):
            (Path(folder) / name).write_text(text)
        for command in ([*COMPILE, "design.sv", "test.sv", "ref.sv"], ["vvp", "-n", "program"]):
            subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _bare_by(threads: int, problems: list[Problem]) -> Spent:
    clock = Clock()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda problem: bare(problem, harness.reference_as_design(problem)), problems))
    return clock.spent(len(problems))


async def _grade_all(pool: Workers, problems: list[Problem], goldens: list[Verdict], samples: int) -> Spent:
    clock = Clock()
    pairs = zip(problems, goldens, strict=True)
    jobs = [pool.grade(p, harness.reference_as_design(p), golden) for p, golden in pairs for _ in range(samples)]
    verdicts = await asyncio.gather(*jobs)
    assert all(v.passed for v in verdicts), "a reference failed"
    return clock.spent(len(jobs))


async def throughput(problems: list[Problem], simulator: Simulator, samples: int, rounds: int) -> None:
    async with workers(simulator, at_once()) as pool:
        goldens = await asyncio.gather(*map(pool.golden, problems))
        gradable = [i for i, golden in enumerate(goldens) if golden.passed]
        problems, goldens = [problems[i] for i in gradable], [goldens[i] for i in gradable]
        reached: dict[str, list[float]] = {"of the floor": [], "of bare on all cores": [], "CPU time against bare": []}
        for _ in range(rounds):
            one = _bare_by(1, problems)
            graded = await _grade_all(pool, problems, goldens, samples)
            one += _bare_by(1, problems)
            all_cores = _bare_by(cores(), problems * samples)
            print(f"bare: {one.line}; on all cores: {all_cores.line}")
            print(f"graded ({graded.designs}): {graded.line}", flush=True)
            rate = graded.designs / graded.wall
            reached["of the floor"].append(rate * one.wall / one.designs / cores())
            reached["of bare on all cores"].append(rate * all_cores.wall / all_cores.designs)
            reached["CPU time against bare"].append(graded.cpu / graded.designs / (one.cpu / one.designs))
    for name, values in reached.items():
        print(f"{name}: median {statistics.median(values):.2f} ({', '.join(f'{v:.2f}' for v in values)})")


def cost_of_the_sandbox(kind: simulate.Kind, times: int = 60) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for each in (kind, "none"):
            taken = []
            for _ in range(times):
                start = time.perf_counter()
                confined(["true"], folder=folder, kind=each, limits=Limits())
                taken.append(time.perf_counter() - start)
            print(f"one run of `true`, {each}: {statistics.median(taken) * 1e3:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark")
    parser.add_argument("--problems", type=int, default=None)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--neighbours", action="store_true", help="What hostile designs cost the honest beside them")
    options = parser.parse_args()
    simulator = Simulator(find_confinement(), Limits(seconds=30.0))
    problems = list(load_benchmark(options.benchmark).problems)[: options.problems]
    print(f"{simulate.find_simulator()}, {simulator.sandbox}, load before {os.getloadavg()[0]:.1f}")
    if options.neighbours:
        return neighbours.measure(problems[len(problems) // 2], simulator)
    asyncio.run(throughput(problems, simulator, options.samples, options.rounds))
    cost_of_the_sandbox(simulator.sandbox)


if __name__ == "__main__":
    main()
