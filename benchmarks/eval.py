"""How fast designs are graded against the floor, what the sandbox costs, and whether a plain harness agrees.

`python -m benchmarks.eval BENCHMARK [--problems N] [--agreement]`. Floor: cores / mean time of bare iverilog + vvp, one
after the other, in the same run. The plain harness compiles design, testbench and reference as the official Makefile
does (`iverilog -Wall -Winfloop -Wno-timescale -g2012 -s tb`, 30 s) and reads its log as the official analysis does.
"""

import argparse
import asyncio
import os
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from eval import harness, simulate
from eval.benchmark import Problem, load_benchmark
from eval.sandbox import Limits, find_confinement
from eval.sandbox import run as confined
from eval.simulate import Simulator, Verdict
from eval.stage import cores
from eval.worker import admitted
from eval.workers import workers

COMPILE = ("iverilog", "-Wall", "-Winfloop", "-Wno-timescale", "-g2012", "-s", "tb", "-o", "program")
SAMPLES = 5
MUTATIONS: dict[str, tuple[str, str]] = {
    "operator": (r"(?<=[\w\])] )([&|^+-])(?= [\w~(\[])", "swap"),
    "constant": (r"\b\d+'[bdh]\w+|(?<==\s)\d+(?=;)", "constant"),
    "edge": (r"\bposedge\b", "negedge"),
    "reset": (r"\bif \((reset|rst|areset|r)\)", r"if (!\1)"),
    "bit order": (r"\{(\w[\w\[\]:]*), (\w[\w\[\]:]*)", r"{\2, \1"),
    "dropped branch": (r"\belse\b(?! if)[^;]*;", ";"),
    "inverted output": (r"assign (\w+) = ([^;]+);", r"assign \1 = ~(\2);"),
    "dropped semicolon": (r";(?=\s*endmodule)", ""),
    "unknown name": (r"assign (\w+) =", r"assign \1 = absent_name ^"),
}
_SWAPPED = {"&": "|", "|": "&", "^": "&", "+": "-", "-": "+"}


def _bare(problem: Problem, design: str) -> str:
    """'.' where a plain harness passes the design, else the official analysis' kind of failure, roughly."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("design.sv", design), ("test.sv", problem.test), ("ref.sv", problem.reference)):
            (Path(folder) / name).write_text(text)
        compiled = subprocess.run(
            [*COMPILE, "design.sv", "test.sv", "ref.sv"], cwd=folder, capture_output=True, text=True, check=False
        )
        log = compiled.stdout + compiled.stderr
        if compiled.returncode == 0:
            try:
                ran = subprocess.run(
                    ["./program"], cwd=folder, capture_output=True, text=True, timeout=30, check=False, errors="replace"
                )
                log += ran.stdout + ran.stderr
            except subprocess.TimeoutExpired:
                return "T"
    for mark, kind in (("syntax error", "S"), ("TIMEOUT", "T"), ("Unable to bind", "p"), ("error", "C")):
        if mark in log:
            return kind
    found = re.findall(r"^Mismatches: (\d+) in \d+ samples$", log, re.MULTILINE)
    return "." if found and int(found[-1]) == 0 else "R"


def _mutated(design: str, pattern: str, into: str, draw: random.Random) -> str | None:
    """The design with one place changed, after its header; None where the kind has no place in it."""
    body = design.find(");")
    places = [m for m in re.finditer(pattern, design) if m.start() > body]
    if not places:
        return None
    place = draw.choice(places)
    if into == "swap":
        new = _SWAPPED[place.group()]
    elif into == "constant":
        new = f"({place.group()} + 1)"
    else:
        new = place.expand(into)
    return design[: place.start()] + new + design[place.end() :]


def _designs(problem: Problem) -> Iterator[tuple[str, str]]:
    reference = harness.reference_as_design(problem)
    yield "reference", reference
    draw = random.Random(problem.task_id)
    for kind, (pattern, into) in MUTATIONS.items():
        mutant = _mutated(reference, pattern, into, draw)
        if mutant is not None:
            yield kind, mutant


def agreement(problems: list[Problem], simulator: Simulator) -> None:
    compared, differing, kinds = 0, [], set[str]()
    for problem in problems:
        golden = simulate.golden(problem, simulator)
        for kind, design in _designs(problem):
            code = admitted(design, problem.interface, 30)
            ours = code if isinstance(code, Verdict) else simulate.grade(problem, code, golden, simulator)
            theirs = _bare(problem, design)
            compared, _ = compared + 1, kinds.add(kind)
            if ours.passed != (theirs == "."):
                differing.append(f"{problem.task_id} {kind}: ours {ours.category} ({ours.detail}), plain {theirs}")
    print(f"agreement: {compared} designs of {len(problems)} problems, {len(kinds)} kinds; {len(differing)} differ")
    print("\n".join(differing))


def _mean_seconds(work: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


async def _throughput(problems: list[Problem], simulator: Simulator) -> float:
    """Samples a second, goldens included in none: they are run before the clock starts."""
    async with workers(simulator, cores()) as pool:
        goldens = await asyncio.gather(*map(pool.golden, problems))
        start = time.perf_counter()
        jobs = [
            pool.grade(problem, harness.reference_as_design(problem), golden)
            for problem, golden in zip(problems, goldens, strict=True)
            for _ in range(SAMPLES)
        ]
        await asyncio.gather(*jobs)
        return len(jobs) / (time.perf_counter() - start)


def throughput(problems: list[Problem], simulator: Simulator) -> None:
    bare = statistics.fmean(
        _mean_seconds(lambda p=p: _bare(p, harness.reference_as_design(p)), 1) for p in problems
    )  # fmt: skip
    floor = cores() / bare
    reached = asyncio.run(_throughput(problems, simulator))
    print(f"bare iverilog + vvp: {bare * 1e3:.1f} ms a design; floor on {cores()} cores {floor:.1f} samples/s")
    print(f"graded: {reached:.1f} samples/s ({reached / floor:.0%} of the floor), {len(problems)} x {SAMPLES}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in (simulator.sandbox, "none"):
            seconds = _mean_seconds(lambda k=kind: confined(["true"], folder=folder, kind=k, limits=Limits()), 30)
            print(f"one run of `true`, {kind}: {seconds * 1e3:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark")
    parser.add_argument("--problems", type=int, default=None)
    parser.add_argument("--agreement", action="store_true")
    options = parser.parse_args()
    simulator = Simulator(find_confinement(), Limits(seconds=30.0))
    problems = list(load_benchmark(options.benchmark).problems)[: options.problems]
    print(f"{simulate.find_simulator()}, {simulator.sandbox}, load before {os.getloadavg()[0]:.1f}")
    (agreement if options.agreement else throughput)(problems, simulator)


if __name__ == "__main__":
    main()
