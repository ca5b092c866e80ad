"""Our verdicts beside the official harness's, for references, mutated references and broken code of a dataset.

`python -m benchmarks.grader.agreement DATASET_ROOT [--jobs N] [--seconds S] [--problems N]`: every `dataset_*` folder
below the root, or the root itself. The official verdict is what NVlabs/verilog-eval's Makefile and sv-iv-analyze
conclude: compile design, testbench and reference with their flags, run for at most `seconds` (30 there), read the log
line by line until one tells. It runs bare: give it no code from a model.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.grader.mutants import BROKEN, mutants
from common.benchmark.folder import DATASETS
from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Problem
from common.machine import cores
from eval.grade import harness, simulate
from eval.grade.simulate import Simulator, Verdict
from eval.grade.worker import admitted
from eval.sandbox.run import Limits, find_confinement

COMPILE = ("iverilog", "-Wall", "-Winfloop", "-Wno-timescale", "-g2012", "-s", "tb", "-o", "program")
FIRST_DECIDES = (
    ("error: This assignment requires an explicit cast", "e"),
    ("error: Sized numeric constant must have a size greater than zero", "0"),
    ("warning: always_comb process has no sensitivities", "n"),
    ("found no sensitivities so it will never trigger", "n"),
    ("is declared here as wire", "w"),
    ("Unknown module type", "m"),
    ("Unable to bind wire/reg/memory `clk'", "c"),
    ("TIMEOUT", "T"),
)
"""What the official analysis looks for in a line, in its order; a syntax error comes before all, other errors after."""
_MISMATCHES = re.compile(r"^Mismatches: (\d+) in \d+ samples$")


@dataclass(frozen=True)
class Compared:
    """One design's two verdicts."""

    task: str
    kind: str
    ours: Verdict
    theirs: str

    @property
    def differs(self) -> bool:
        return self.ours.passed != (self.theirs == ".")


def official(log: str, design: str) -> str:
    """The letter of sv-iv-analyze for a log: `.` passed, R mismatched, others by their reason."""
    error = unbound = clean = False
    for line in log.split("\n"):
        if "syntax error" in line:
            return "S"
        error |= "error" in line
        for words, letter in FIRST_DECIDES:
            if words in line:
                return letter
        unbound |= "Unable to bind wire/reg" in line
        found = _MISMATCHES.match(line)
        clean |= found is not None and int(found[1]) == 0
    if unbound or error:
        return "p" if unbound else "C"
    if clean:
        return "."
    return "r" if re.search(r"(posedge|negedge) reset|posedge r\)", design) else "R"


def run_bare(problem: Problem, design: str, seconds: float) -> str:
    """The log that the official Makefile would keep."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("design.sv", design), ("test.sv", problem.test), ("ref.sv", problem.reference)):
            (Path(folder) / name).write_text(text)

        def output(*command: str) -> str:
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    timeout=seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired as expired:
                return (expired.stdout or b"").decode(errors="replace") + "TIMEOUT\n"
            return done.stdout.decode(errors="replace")

        log = output(*COMPILE, "design.sv", "test.sv", "ref.sv")
        return log + (output("vvp", "-n", "program") if (Path(folder) / "program").exists() else "")


def compare(problem: Problem, simulator: Simulator) -> list[Compared]:
    golden, rows = simulate.golden(problem, simulator), []
    reference = harness.reference_as_design(problem)
    for kind, design in [("reference", reference), *mutants(reference, problem.task_id)]:
        admission = admitted(design, problem.interface, simulator)
        ours = admission if isinstance(admission, Verdict) else simulate.grade(problem, admission, golden, simulator)
        log = run_bare(problem, design, simulator.limits.seconds)
        rows.append(Compared(problem.task_id, kind, ours, official(log, design)))
    return rows


def _print(name: str, rows: list[Compared]) -> None:
    kinds = Counter(row.task for row in rows if row.kind not in BROKEN | {"reference"})
    few = {task: count for task, count in kinds.items() if count < 6}
    differing = [row for row in rows if row.differs]
    tasks = len({row.task for row in rows})
    print(f"{name}: {tasks} problems, {len(rows)} designs, {len(differing)} verdicts differ")
    print(f"  mutation kinds a problem: {min(kinds.values())} to {max(kinds.values())}, fewer than 6: {few or 'none'}")
    print("  designs by kind:", ", ".join(f"{kind} {n}" for kind, n in Counter(row.kind for row in rows).items()))
    pairs = Counter((row.ours.category, row.theirs) for row in rows)
    print("  ours and official:", ", ".join(f"{a}/{b} {n}" for (a, b), n in sorted(pairs.items())))
    for row in differing:
        print(f"  {row.task} {row.kind}: ours {row.ours.category} ({row.ours.detail}), official {row.theirs}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--jobs", type=int, default=cores())
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--problems", type=int, default=None, help="the first so many of each dataset")
    options = parser.parse_args()
    simulator = Simulator(find_confinement(), Limits(seconds=options.seconds))
    folders = sorted(path for path in options.root.glob(f"{DATASETS}*") if path.is_dir()) or [options.root]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        tempfile.tempdir = work
        with ProcessPoolExecutor(options.jobs) as pool:
            for folder in folders:
                rows: list[Compared] = []
                problems = load_benchmark(str(folder)).problems[: options.problems]
                for found in pool.map(partial(compare, simulator=simulator), problems):
                    rows += found
                    print(f"\r{len(rows)} designs", end="", file=sys.stderr, flush=True)
                print(file=sys.stderr)
                _print(folder.name, rows)


if __name__ == "__main__":
    os.nice(5)
    main()
