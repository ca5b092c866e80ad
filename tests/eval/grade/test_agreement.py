"""Verdicts equal the official harness's on mutants of a small benchmark, and what starts simulations may itself die."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.grader.agreement import compare, official
from benchmarks.grader.mutants import BROKEN, mutants
from common.benchmark.layouts import load_benchmark
from eval.grade import simulate
from eval.grade.simulate import Simulator
from eval.sandbox import run as sandbox
from eval.sandbox.run import Limits, find_confinement

MISMATCHED = "Mismatches: 3 in 64 samples\n"


@pytest.mark.parametrize(
    ("log", "letter"),
    [
        ("Mismatches: 0 in 64 samples\n", "."),
        (MISMATCHED, "R"),
        ("", "R"),
        ("Mismatches: 0 in 64 samples\nTIMEOUT\n", "T"),
        ("design.sv:3: syntax error\ntb: Unknown module type: x\n", "S"),
        ("error: x\nerror: Unknown module type: x\n", "m"),
        ("error: Unable to bind wire/reg/memory `q'\n", "p"),
        ("error: Unable to bind wire/reg/memory `clk'\n", "c"),
        ("1 error(s) during elaboration.\n", "C"),
        ("warning: always_comb process has no sensitivities\nMismatches: 0 in 64 samples\n", "n"),
    ],
)
def test_a_log_is_read_as_the_official_analysis_reads_it(log: str, letter: str) -> None:
    assert official(log, "always @(posedge clk)") == letter


def test_a_mismatch_beside_an_asynchronous_reset_is_told_apart() -> None:
    assert official(MISMATCHED, "always @(posedge clk, posedge reset)") == "r"


def test_every_verdict_on_mutants_agrees(benchmark_folder: Path) -> None:
    simulator = Simulator(find_confinement(), Limits(seconds=20.0))
    rows = compare(load_benchmark(str(benchmark_folder)).problems[0], simulator)
    kinds = {row.kind for row in rows}
    assert len(kinds - BROKEN) >= 6 and len(kinds & BROKEN) >= 4
    assert [row for row in rows if row.differs] == []
    assert sum(row.ours.passed for row in rows) < len(rows) / 2 and rows[0].ours.passed


def test_a_mutant_differs_in_one_place_and_is_the_same_again(solve: Callable[[str], str]) -> None:
    design = solve("Prob001_register")
    found = dict(mutants(design, "seed"))
    assert found == dict(mutants(design, "seed")) and design not in found.values()


def test_delays_count_in_seconds_as_where_the_design_comes_first(
    benchmark_folder: Path, top: Callable[[str], str]
) -> None:
    problem = load_benchmark(str(benchmark_folder)).by_id["Prob003_parity"]
    simulator = Simulator(find_confinement(), Limits(seconds=20.0))
    golden = simulate.golden(problem, simulator)
    at_once, late = (top(f"always @* {delay} q = {{rst, 2'b0, ^d}};") for delay in ("", "#1"))
    assert simulate.grade(problem, at_once, golden, simulator).passed
    assert simulate.grade(problem, late, golden, simulator).category == "mismatch"
    told = f"`timescale 1ps/1ps\n{late}"
    assert simulate.grade(problem, told, golden, simulator).passed


def test_a_launcher_that_dies_is_an_error_and_is_replaced(tmp_path: Path) -> None:
    kind, limits = find_confinement(), Limits(seconds=20.0)

    def run(*argv: str) -> sandbox.Finished:
        return sandbox.run(list(argv), folder=str(tmp_path), kind=kind, limits=limits)

    parent = int(run("sh", "-c", "echo $PPID").output)
    assert int(run("sh", "-c", "echo $PPID").output) == parent != os.getpid()
    threading.Timer(0.5, os.kill, (parent, signal.SIGKILL)).start()
    with pytest.raises(OSError, match="died"):
        run("sleep", "5")
    assert run("echo", "again").output == "again\n"
