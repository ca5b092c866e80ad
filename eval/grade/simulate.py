"""Compile a design with its problem's harness, run it, and read the verdict that only the testbench can write."""

import os
import re
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from common.benchmark.problems import Problem
from common.errors import UserError
from eval.grade import harness
from eval.grade.harness import Harness
from eval.grade.verdict import Verdict, check_room, first_line
from eval.sandbox import run as sandbox
from eval.sandbox import scratch
from eval.sandbox.run import Kind, Limits

_VERDICT = re.compile(r"Mismatches: +(\d+) +in +(\d+) +samples")
_WITNESS = re.compile(r"Witness: ([0-9a-f]+\.\d+)")
_HINT = re.compile(r"Output '(\w+)' has (\d+) mismatches\. First mismatch occurred at time (\d+)")
_COMPILE_KINDS = (
    ("width_cast", re.compile(r"This assignment requires an explicit cast")),
    ("unresolved_port", re.compile(r"Unable to bind wire/reg|is not a port of")),
)
"""Elaboration errors that the official analysis tells apart (its `e`, and its `p` and `c`)."""
_OTHERWISE = (
    "inputs or reference outputs were other than in the reference's own run (the design drives them, or draws $random)"
)
_VERSION = re.compile(r"version\s+(\S+)")


@dataclass(frozen=True)
class Simulator:
    """How to run: the confinement and the limits of each of the two binaries."""

    sandbox: Kind
    limits: Limits


def find_simulator() -> str:
    """The version of the installed iverilog; raises UserError when it or vvp is missing."""
    for tool in ("iverilog", "vvp"):
        if shutil.which(tool) is None:
            raise UserError(
                f"{tool} is not installed: designs are scored by simulating them with Icarus Verilog",
                where="PATH",
                fix="install it: apt install iverilog (Debian, Ubuntu), brew install icarus-verilog (macOS)",
            )
    with scratch.folder() as folder:  # it begins a file of its own there, and may be killed
        env = {**os.environ, "TMPDIR": folder}
        done = subprocess.run(["iverilog", "-V"], env=env, capture_output=True, text=True, timeout=60, check=False)
    found = _VERSION.search(done.stdout)
    return f"iverilog {found.group(1)}" if found else "iverilog (unknown version)"


def compile_design(
    rig: Harness, design: str, folder: str, simulator: Simulator, above: str | None = None
) -> Verdict | bytes:
    """The simulator's program, or why there is none; `design` is admitted text, in which no macro is left.

    It comes last: its directives reach nothing of ours. Its unit of time is iverilog's default, as where a design comes
    first (the official harness), not the testbench's. `above` is a folder above `folder` that further compilations
    share, where there is one (see `sandbox.run`).
    """
    work = Path(folder)
    harness_text = f"{rig.test}\n{rig.reference}\n`resetall\n`timescale 1s/1s\n"
    (work / "test.sv").write_text(harness_text, encoding="utf-8")
    (work / "design.sv").write_text('`line 1 "design.sv" 0\n' + design + "\n", encoding="utf-8")
    argv = ["iverilog", "-g2012", "-Wno-timescale", "-s", rig.top, "-o", "program"]
    done = sandbox.run(
        [*argv, "test.sv", "design.sv"],
        folder=folder,
        kind=simulator.sandbox,
        limits=simulator.limits,
        writable=above or True,
    )
    output = rig.clean(done.output)
    if done.stopped:
        what = "time" if done.stopped == "time" else "output"
        return Verdict("timeout" if what == "time" else "elaboration", f"the compiler ran over its limit of {what}")
    program = work / "program"
    if done.code == 0 and program.is_file() and not program.is_symlink():
        return program.read_bytes()
    check_room(folder)
    if re.search(r"syntax error|I give up|[Mm]alformed|[Ii]nvalid module item", output):
        return Verdict("syntax", first_line(output))
    if done.code < 0 or done.code >= 128 or "memory" in output or "bad_alloc" in output:
        return Verdict("elaboration", first_line(output) or "the compiler died of its limits")
    found = next((kind for kind, pattern in _COMPILE_KINDS if pattern.search(output)), "elaboration")
    return Verdict(found, first_line(output))


def _ending(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _read(rig: Harness, done: sandbox.Finished) -> Verdict:
    """Trust lines with this run's mark, nothing else."""
    ours = [line.split(rig.mark, 1)[1] for line in done.output.splitlines() if rig.mark in line]
    if done.stopped == "time":
        return Verdict("timeout", "the simulation ran over its limit of time")
    if done.stopped == "output":
        return Verdict("runtime", "the simulation printed more than its limit of output")
    verdicts = [m for m in map(_VERDICT.search, ours) if m]
    if len(verdicts) != 1 or done.code != 0:
        said = first_line("\n".join(line for line in done.output.splitlines() if rig.mark not in line))
        return Verdict(
            "runtime", f"no verdict from the testbench ({_ending(done.code)}): {rig.clean(said)}".rstrip(": ")
        )
    mismatches, samples = map(int, verdicts[0].groups())
    witness = next((m.group(1) for m in map(_WITNESS.search, ours) if m), "")
    verdict = Verdict("passed", "", mismatches, samples, witness)
    if any(line.strip() == "TIMEOUT" for line in ours):
        return replace(verdict, category="timeout", detail=f"the testbench gave up; {mismatches}/{samples} mismatched")
    if mismatches or not samples:
        hints = sorted((int(m[3]), m[1], m[2]) for m in map(_HINT.search, ours) if m)
        shown = ", ".join(f"{name} {count} from time {time}" for time, name, count in hints)
        detail = f"{mismatches}/{samples} samples mismatched" + (f": {shown}" if shown else "")
        first = hints[0][0] if hints else None
        outputs = tuple(name for time, name, _ in hints if time == first)
        return replace(verdict, category="mismatch", detail=detail, first_outputs=outputs, first_time=first)
    return verdict


def _run(problem: Problem, design: str, simulator: Simulator, key: int) -> Verdict:
    rig = harness.build(problem, key)
    if rig is None:
        return Verdict("ungradable", "the testbench instantiates no TopModule whose connections can be read")
    with sandbox.workplace() as (folder, above):
        program = compile_design(rig, design, folder, simulator, above)
        if isinstance(program, Verdict):
            return program
        limits = replace(simulator.limits, file_size=0, may_fork=False)
        argv = ["vvp", "-n", "/dev/stdin", "-none"]
        empty = os.path.join(folder, "empty")
        os.mkdir(empty)
        return _read(rig, sandbox.run(argv, folder=empty, kind=simulator.sandbox, limits=limits, stdin=program))


def golden(problem: Problem, simulator: Simulator) -> Verdict:
    """Run the reference against itself: what every honest run of this problem must agree with."""
    key = secrets.randbits(64) | 1
    verdict = _run(problem, harness.reference_as_design(problem), simulator, key)
    if verdict.passed:
        return replace(verdict, key=key)
    return replace(verdict, category="ungradable", detail=f"the reference itself: {verdict.category}, {verdict.detail}")


def grade(problem: Problem, design: str, expected: Verdict, simulator: Simulator) -> Verdict:
    """Simulate a design; it passes with no mismatch over exactly the golden run's samples and reference outputs."""
    if not expected.passed:
        return expected
    verdict = _run(problem, design, simulator, expected.key)
    if verdict.category in ("passed", "mismatch") and verdict.samples != expected.samples:
        detail = f"{verdict.samples} samples were compared where the reference has {expected.samples}"
        return replace(verdict, category="runtime", detail=detail)
    if verdict.passed and verdict.witness != expected.witness:
        return replace(verdict, category="rejected", detail=_OTHERWISE)
    return verdict
