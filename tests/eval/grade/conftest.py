"""A problem with state, its golden run, and the simulator that designs are graded with; a module may bring its own."""

from pathlib import Path

import pytest

from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Problem
from eval.grade import simulate
from eval.grade.simulate import Simulator
from eval.grade.verdict import Verdict
from eval.sandbox.run import Limits, find_confinement


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(find_confinement(), Limits(seconds=20.0))


@pytest.fixture(scope="module")
def problem(benchmark_folder: Path) -> Problem:
    return load_benchmark(str(benchmark_folder)).by_id["Prob002_sum"]


@pytest.fixture(scope="module")
def golden(problem: Problem, simulator: Simulator) -> Verdict:
    return simulate.golden(problem, simulator)
