"""One sample's program reaches no other's folder, and leaves no process behind, not even by ending what started it."""

import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Problem
from eval.grade import simulate
from eval.grade.simulate import Simulator
from eval.sandbox import landlock
from eval.sandbox import run as sandbox
from eval.sandbox.run import Limits

ROOT = Path(__file__).resolve().parents[3]
THERE: dict[sandbox.Kind, object] = {"landlock": landlock.abi(), "bubblewrap": shutil.which("bwrap")}
KINDS = [kind for kind, there in THERE.items() if there]
NEIGHBOUR = """
import os, sys
from eval.sandbox import run as sandbox
with sandbox.workplace() as (folder, above):
    open(os.path.join(folder, "test.sv"), "w").write("a_word_of_the_neighbour\\n")
    print(folder, flush=True)
    sys.stdin.readline()
    print(sorted(os.listdir(folder)), sorted(os.listdir(above)) == [os.path.basename(folder)])
"""


def _escapes(name: str) -> str:
    """Shell words that leave a process in a session of its own, and go on when it has begun."""
    return f"setsid sh -c 'echo > begun; exec sleep {name} >&- 2>&-' & while [ ! -s begun ]; do :; done"


def _is_running(name: str) -> bool:
    listed = subprocess.run(["ps", "-e", "-o", "stat=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split() for line in listed.splitlines() if name in line]
    return any(words[0][0] != "Z" for words in found)


@contextmanager
def _neighbour() -> Iterator[tuple[Path, Callable[[], str]]]:
    """Another worker's folder in the middle of a sample; the function ends it and tells what it found there."""
    with subprocess.Popen(
        [sys.executable, "-c", NEIGHBOUR], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip()), lambda: process.communicate("\n", timeout=60)[0].strip()


@pytest.fixture(scope="module")
def problem(benchmark_folder: Path) -> Problem:
    return load_benchmark(str(benchmark_folder)).by_id["Prob001_register"]


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_at_once_reach_nothing_of_each_other(
    kind: sandbox.Kind, problem: Problem, top: Callable[[str], str]
) -> None:
    simulator = Simulator(kind, Limits(seconds=20))
    golden = simulate.golden(problem, simulator)
    with _neighbour() as (folder, found):
        assert (folder / "test.sv").is_file()
        looks = top(f'`include "{folder}/test.sv"\nalways @(posedge clk) if (rst) q <= 0; else q <= d;')
        leaves = f"for f in '{folder}/left' '{folder}/test.sv' '{folder.parent}/left'; do echo x > $f; done"
        peeks = f"cat '{folder}/test.sv'; ls '{folder}' '{folder.parent}'; ln -s '{folder}' link; cat link/test.sv"
        verdict = simulate.grade(problem, looks, golden, simulator)
        with sandbox.workplace() as (own, above):
            command = ["sh", "-c", f"echo alive; {leaves}; {peeks}; rm -r '{folder}'"]
            done = sandbox.run(command, folder=own, kind=kind, limits=simulator.limits, writable=above)
        told = found()
    assert golden.passed and not verdict.passed and "a_word" not in verdict.detail
    assert done.output.startswith("alive") and "a_word" not in done.output
    assert told == "['test.sv'] True"


@pytest.fixture
def name() -> str:
    """So many seconds that no other process sleeps as long."""
    return str(10**9 + secrets.randbelow(10**9))


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_what_left_its_group_ends_with_its_run(kind: sandbox.Kind, name: str, tmp_path: Path) -> None:
    command = ["sh", "-c", f"{_escapes(name)}; echo left"]
    done = sandbox.run(command, folder=str(tmp_path), kind=kind, limits=Limits(seconds=60), writable=True)
    assert done.output == "left\n" and done.stopped == ""
    assert not _is_running(name)


@pytest.mark.parametrize("kind", ["none", *(kind for kind in KINDS if kind == "landlock")])
def test_a_killed_launcher_leaves_nothing_running(kind: sandbox.Kind, name: str, tmp_path: Path) -> None:
    """A worker's launcher is ended by its own program, which has left a process in another session."""
    body = f"{_escapes(name)}; echo > left; kill -9 $PPID"
    script = f"""
from eval.sandbox import launcher_pool as launchers, run as sandbox
launchers.adopt_orphans()
try:
    sandbox.run(["sh", "-c", {body!r}], folder={str(tmp_path)!r}, kind={kind!r}, limits=sandbox.Limits(), writable=True)
except OSError as error:
    print(error)
print(sandbox.run(["echo", "next"], folder={str(tmp_path)!r}, kind={kind!r}, limits=sandbox.Limits()).output)
"""
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "died" in told.stdout and "next" in told.stdout and (tmp_path / "left").exists(), told.stderr
    assert not _is_running(name)
