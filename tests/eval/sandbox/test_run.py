"""Hostile designs end within their limits, and leave nothing changed outside their folder."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Problem
from common.digests.known import Digests
from eval.grade import simulate
from eval.grade.simulate import Simulator, Verdict
from eval.sandbox import landlock
from eval.sandbox import run as sandbox
from eval.sandbox.run import MIB, Limits, find_confinement

WILD = {
    "loops in the simulator": "initial while (1) ;",
    "loops without time": "reg a = 0; always @* a = ~a; initial #1 a = 1;",
    "loops in the compiler": "function integer f(input integer x); while (1) f = x; endfunction\nlocalparam L = f(1);",
    "generates without end": "genvar i; generate for (i = 0; i < 1000000000; i++) begin : g reg r; end endgenerate",
    "instantiates itself": "TopModule again (.clk, .rst, .d, .q());",
    "a vector of 10^9 bits": "reg [999999999:0] big; initial big = ~big; always @(posedge clk) big <= big + 1;",
    "a memory of 10^9 words": "reg [31:0] m [0:999999999]; initial m[5] = 1;",
    "a macro that doubles": "".join(f"`define M{i} `M{i - 1} `M{i - 1}\n" for i in range(40, 0, -1)).replace(
        "`M0", "assign q = 1;"
    )
    + "`M40",
    "floods the output": 'initial forever $display("%0d", {100{32\'hffffffff}});',
    "floods a little a step": 'always @(clk) repeat (100000) $display("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");',
    "grows a string": 'string s = "x"; initial forever s = {s, s};',
    "writes its own memory": 'integer f; initial begin f = $fopen("/proc/self/mem", "r+"); $fwrite(f, "x"); end',
    "reads its own memory": 'integer f; initial begin f = $fopen("/proc/self/mem", "r"); q = $fgetc(f); end',
    "recurses": "function automatic integer f(input integer x); f = f(x + 1); endfunction\ninitial q = f(0);",
    "replicates without end": "wire [31:0] w = {1000000000{1'b1}};",
    "shifts by the world": "reg [1048575:0] v = 1; always @(clk) repeat (100000) v = v << 1;",
    "forks": "initial forever fork begin #1; end join_none",
}


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(find_confinement(), Limits(seconds=1.0, memory=512 * MIB))


@pytest.fixture(scope="module")
def problem(benchmark_folder: Path) -> Problem:
    return load_benchmark(str(benchmark_folder)).by_id["Prob001_register"]


@pytest.fixture(scope="module")
def golden(problem: Problem, simulator: Simulator) -> Verdict:
    return simulate.golden(problem, replace(simulator, limits=Limits(seconds=20)))


@pytest.mark.parametrize("name", WILD)
def test_the_hostile_end_and_fail(
    name: str, problem: Problem, golden: Verdict, simulator: Simulator, top: Callable[[str], str]
) -> None:
    verdict = simulate.grade(problem, top(WILD[name]), golden, simulator)
    assert verdict.category in ("timeout", "runtime", "syntax", "elaboration", "mismatch"), verdict


KINDS = ["landlock"] * (landlock.abi() > 0) + ["bubblewrap"] * (shutil.which("bwrap") is not None)
WRITERS = (
    'integer f; initial begin f = $fopen("{path}", "w"); $fdisplay(f, "gone"); $fclose(f); end',
    'initial $dumpfile("{path}"); initial $dumpvars;',
    'reg [7:0] m [0:1]; initial $writememh("{path}", m);',
)


@pytest.mark.parametrize("body", WRITERS)
def test_nothing_outside_is_written(
    body: str,
    problem: Problem,
    golden: Verdict,
    simulator: Simulator,
    top: Callable[[str], str],
    tmp_path: Path,
) -> None:
    (tmp_path / "kept").write_text("as it was")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    before = Digests().of(tmp_path)
    for name in ("kept", "link", "new"):
        simulate.grade(problem, top(body.replace("{path}", str(tmp_path / name))), golden, simulator)
    assert Digests().of(tmp_path) == before


@pytest.mark.parametrize("path", ["{outside}/secret", "/etc/passwd", "/proc/self/mem", "/proc/self/environ"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_cannot_be_read(kind: sandbox.Kind, path: str, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("a secret")
    path = path.replace("{outside}", str(outside))
    if kind == "bubblewrap" and path.startswith("/proc"):
        path = f"/proc/{os.getpid()}/environ"
    command = ["sh", "-c", f"head -c 20 {path} && echo was-read"]
    done = sandbox.run(command, folder=str(inside), kind=kind, limits=Limits(seconds=10))
    assert done.code != 0 and "was-read" not in done.output


def test_unconfined_they_can(tmp_path: Path) -> None:
    command = ["sh", "-c", "head -c 4 /etc/passwd && echo was-read"]
    assert "was-read" in sandbox.run(command, folder=str(tmp_path), kind="none", limits=Limits(seconds=10)).output


def test_the_network_is_barred(tmp_path: Path) -> None:
    code = "import socket; socket.create_server(('127.0.0.1', 0))"
    command = ["python3", "-I", "-S", "-c", code]
    done = sandbox.run(command, folder=str(tmp_path), kind=find_confinement(), limits=Limits(seconds=10))
    barred = landlock.abi() >= 4 or find_confinement() == "bubblewrap"  # TCP rules came with Linux 6.7
    assert ("PermissionError" in done.output or "OSError" in done.output) == barred


def test_the_environment_is_scrubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "in the environment")
    done = sandbox.run(["env"], folder=str(tmp_path), kind=find_confinement(), limits=Limits(seconds=10))
    assert done.code == 0 and "PATH=" in done.output and "A_SECRET" not in done.output


def _alive(pid: int) -> bool:
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return status.strip()[:1] not in ("", "Z")


def test_time_ends_the_whole_group(tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 60 & echo $!; wait"]
    done = sandbox.run(command, folder=str(tmp_path), kind=find_confinement(), limits=Limits(seconds=0.5))
    assert done.stopped == "time"
    deadline = time.monotonic() + 30  # a kill is sent at once, and takes effect when the child is next scheduled
    while time.monotonic() < deadline and _alive(int(done.output)):
        time.sleep(0.01)
    assert not _alive(int(done.output))


@pytest.mark.parametrize("script", ["kill -9 $$", "sh -c 'kill -9 $$'; exit $?"])
def test_a_program_that_is_killed_from_outside_has_no_end_of_its_own(script: str, tmp_path: Path) -> None:
    """No limit ends one so: whoever killed it, be it the kernel for want of memory, that is no verdict."""
    with pytest.raises(OSError, match="from outside") as killed:
        sandbox.run(["sh", "-c", script], folder=str(tmp_path), kind=find_confinement(), limits=Limits(seconds=10))
    assert not killed.value.errno


def test_output_and_large_input_are_bounded_and_whole(tmp_path: Path) -> None:
    limits = Limits(seconds=20, output=1 * MIB)
    flood = sandbox.run(["yes"], folder=str(tmp_path), kind=find_confinement(), limits=limits)
    assert flood.stopped == "output" and len(flood.output) == 1 * MIB
    text = b"0123456789abcdef" * 40_000
    echoed = sandbox.run(["cat"], folder=str(tmp_path), kind=find_confinement(), limits=limits, stdin=text)
    assert echoed.code == 0 and echoed.output.encode() == text
