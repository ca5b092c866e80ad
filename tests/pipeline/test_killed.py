"""kill -9 of whoever waits: what it asked, fetched, showed, compiled or simulated ends with it, to the last process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.pipeline.conftest import ASSETS, environment
from tests.processes import PATIENCE_S, descendants_of, left_of, said_by

MODEL = ASSETS / "tiny-gemma4"
ROWS = ASSETS / "starter" / "train.jsonl"
COMPILE = """
from data.screen.compile_check import _Worker
print(_Worker().ask("module m; wire w; " + "assign w = w + 1; " * 2_000_000 + "endmodule"))
"""
SIMULATE = """
import asyncio
from common.benchmark.layouts import load_benchmark
from eval.grade.simulate import Simulator
from eval.grade.worker_pool import workers
from eval.sandbox.run import Limits, find_confinement

async def grade():
    problem = load_benchmark({benchmark!r}).problems[0]
    async with workers(Simulator(find_confinement(), Limits(seconds=600.0)), 2) as pool:
        golden = await pool.golden(problem)
        await asyncio.gather(*(pool.grade(problem, {design!r}, golden) for _ in range(2)))

asyncio.run(grade())
"""


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes every request, and answers none until the test is over."""
    over = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            over.wait(PATIENCE_S)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """A process of ours whose output nobody reads; whatever is left of it is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def call(*command: object, **env: str) -> "subprocess.Popen[bytes]":
        words, known = [sys.executable, *map(str, command)], environment() | env
        started.append(subprocess.Popen(words, cwd=tmp_path, env=known, stdout=subprocess.PIPE))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def await_work(process: "subprocess.Popen[bytes]", *words: str) -> set[int]:
    """All that descends from it, once each of the words is in the command line of one of them, and it is at work."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        found = descendants_of(process.pid)
        said = " ".join(map(said_by, found))
        if all(word in said for word in words):
            return found
        time.sleep(0.02)
    pytest.fail(f"{words} did not begin")


def kill(process: "subprocess.Popen[bytes]", descendants: set[int], how: signal.Signals = signal.SIGKILL) -> int:
    """Its exit code; nothing that descends from it is left."""
    process.send_signal(how)
    code = process.wait(PATIENCE_S)
    assert left_of(descendants) == []
    return code


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_fetch(start: Callable[..., "subprocess.Popen[bytes]"], silent_server: str, how: signal.Signals) -> None:
    rows = ("--model", MODEL, "--input", f"{silent_server}/rows.jsonl", "--out", "out")
    process = start("-m", "tapeout", "data", *rows)
    code = kill(process, await_work(process, "data.sources.fetch"), how)
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_rows_that_are_shown(start: Callable[..., "subprocess.Popen[bytes]"], how: signal.Signals) -> None:
    """Into a pipe that is full."""
    process = start("-m", "tapeout", "data", "--model", MODEL, "--input", ROWS, "--show", "3000")
    assert process.stdout is not None
    begun = process.stdout.read(1)
    assert kill(process, await_work(process, "data.show"), how) == (143 if how == signal.SIGTERM else -9) and begun


def test_a_question(start: Callable[..., "subprocess.Popen[bytes]"], silent_server: str, tmp_path: Path) -> None:
    """Of a model that is on the Hub."""
    process = start("-m", "tapeout", "inspect", "owner/model", HF_ENDPOINT=silent_server, HF_HOME=str(tmp_path))
    assert kill(process, await_work(process, "models.weights.fetch")) == -9


def test_a_compile_check(start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    process = start("-c", COMPILE)
    assert kill(process, await_work(process, "data.screen.compiles")) == -9


def endless(reference: Path) -> str:
    """The reference's design, which then never ends."""
    text = reference.read_text(encoding="utf-8").replace("RefModule", "TopModule")
    return text.replace("endmodule", "initial while (1) ;\nendmodule")


def test_a_pool_of_simulation_workers(start: Callable[..., "subprocess.Popen[bytes]"], small: Path) -> None:
    problems = small.parent / "benchmark"
    design = endless(min(problems.glob("*_ref.sv")))
    process = start("-c", SIMULATE.format(benchmark=str(problems), design=design))
    assert kill(process, await_work(process, "eval.grade.worker", "eval.sandbox.launcher", "vvp")) == -9


def test_a_conductor_takes_all_generations_with_it(
    start: Callable[..., "subprocess.Popen[bytes]"], small: Path, tmp_path: Path
) -> None:
    """Conductor, stage, worker, launcher, simulator: five, and only the first is killed."""
    problems = small.parent / "benchmark"
    references = {path.name.removesuffix("_ref.sv"): path for path in problems.glob("*_ref.sv")}
    rows = [{"task_id": task, "completion": endless(path)} for task, path in references.items()]
    (tmp_path / "stored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--benchmark", problems, "--completions", "stored.jsonl", "--out", "out", "--set", "timeout_s=600")
    process = start("-m", "tapeout", "eval", *flags)
    assert kill(process, await_work(process, " eval ", "eval.grade.worker", "eval.sandbox.launcher", "vvp")) == -9


def test_a_question_whose_process_is_killed(
    start: Callable[..., "subprocess.Popen[bytes]"], silent_server: str, tmp_path: Path
) -> None:
    """By the kernel, for its memory: the conductor says so."""
    process = start("-m", "tapeout", "inspect", "owner/model", HF_ENDPOINT=silent_server, HF_HOME=str(tmp_path))
    (child,) = await_work(process, "models.weights.fetch")
    os.kill(child, signal.SIGKILL)
    assert process.wait(PATIENCE_S) == 1
