"""A working folder full of modules with our names, and Python's, which say so and fail: none of them is ever run.

Python itself looks into PYTHONPATH for a sitecustomize.py before our first line: with -E the command line does not, and
what it starts inherits PYTHONPATH all the same.
"""

import functools
import json
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer.main

from pipeline.cli.app import app
from tests.pipeline.conftest import ASSETS, REPO

MODEL = ASSETS / "tiny-gemma4"
HOSTILE = """\
import os, sys
with open({log!r}, "a") as log:
    print(__name__, os.getpid(), sys.argv, file=log)
raise SystemExit("hostile: " + __name__)
"""
FILES = ("data", "train", "eval", "serve", "convert", "json", "jax", "numpy", "typing", "runpy", "re", "subprocess")
CUSTOM = ("sitecustomize", "usercustomize")
FOLDERS = ("common", "models", "pipeline", "recipes", "data", "eval", "train", "serve", "convert", "logging", "http")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def make_hostile(folder: Path, log: Path, custom: bool) -> None:
    """A module or a package of each name; packages are run whichever of theirs is meant."""
    text = HOSTILE.format(log=str(log))
    for name in (*FILES, *(CUSTOM if custom else ())):
        (folder / f"{name}.py").write_text(text)
    for name in FOLDERS:
        (folder / name).mkdir()
        for file in ("__init__", "__main__", "config", "errors", "process", "stage"):
            (folder / name / f"{file}.py").write_text(text)


@pytest.fixture
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script as installers write it, from what pyproject.toml declares."""
    declared = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]["tapeout"]
    module, _, function = declared.partition(":")
    script = tmp_path_factory.mktemp("bin") / "tapeout"
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return script


@pytest.fixture
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hostile modules say that they were run."""
    return tmp_path_factory.mktemp("log") / "run"


def clean(pythonpath: str | None) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TAPEOUT_DEBUG")}
    return env | {"NO_COLOR": "1"} | ({} if pythonpath is None else {"PYTHONPATH": pythonpath})


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("pythonpath", [None, "", ".", ":", f"{os.pathsep}/opt/plugin", "common"])
def test_the_command_line_itself(pythonpath: str | None, tmp_path: Path, entry: Path, log: Path) -> None:
    make_hostile(tmp_path, log, custom=False)
    command = [sys.executable, entry, "recipes"]
    done = subprocess.run(command, cwd=tmp_path, env=clean(pythonpath), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "quickstart" in done.stdout
    assert not log.exists(), log.read_text()


def test_the_command_line_is_no_child(entry: Path) -> None:
    """What starts the children is not for those who type: it would run any module."""
    command = [sys.executable, entry, "--child", "0", "this"]
    done = subprocess.run(command, env=clean(None), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and "--child" in done.stderr


def test_python_m_tapeout_beside_modules_of_our_names(tmp_path: Path, log: Path) -> None:
    make_hostile(tmp_path, log, custom=False)
    for name in ("re", "runpy", "typing", "subprocess"):  # of those, Python's own `-m` runs the hostile ones itself
        (tmp_path / f"{name}.py").unlink()
    command = [sys.executable, "-m", "tapeout", "inspect", str(MODEL)]
    done = subprocess.run(command, cwd=tmp_path, env=clean(None), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "gemma4" in done.stdout
    assert not log.exists(), log.read_text()


def commands_of(group: object) -> set[str]:
    """Every command, as it is typed."""
    inner = getattr(group, "commands", None)
    if inner is None:
        return {""}
    return {f"{name} {rest}".strip() for name, below in inner.items() for rest in commands_of(below)}


class Hostile:
    """Runs the command line in the hostile folder, and remembers what was run."""

    def __init__(self, folder: Path, entry: Path, log: Path):
        self.folder, self.log, self.called = folder, log, set[str]()
        self.command = [sys.executable, "-E", str(entry)]
        self.env = clean(".") | {"XDG_CACHE_HOME": str(folder / "kept")}

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        words = [*map(str, arguments)]
        self.called.add(" ".join(words[:2]) if words[0] in ("baseline", "bench") else words[0])
        command = [*self.command, *words]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        assert not self.log.exists(), f"{words}: {self.log.read_text()}"
        assert done.returncode == code, done.stderr
        return done.stdout

    def serves(self, *arguments: str | Path) -> None:
        """Until it is ready and has been put under load; then it is stopped."""
        self.called.add("serve")
        words = [*self.command, "serve", *map(str, arguments)]
        with subprocess.Popen(words, cwd=self.folder, env=self.env, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            said = []
            for line in server.stderr:
                said.append(line)
                if line.startswith("serving "):
                    load = ("--length", "8x4", "--requests", "2", "--qps", "inf", "--out", "load")
                    self("bench", "serve", "--endpoint", line.split()[-1], "--model", "mine", *load)
                    server.terminate()
        assert any(line.startswith("serving ") for line in said) and server.returncode == 0, "".join(said)
        assert not self.log.exists(), self.log.read_text()


def test_every_command_with_flags(small: Path, tmp_path: Path, entry: Path, log: Path) -> None:
    benchmark = (tmp_path / "benchmark").rename(tmp_path / "problems")
    tasks = sorted(path.name.removesuffix("_ref.sv") for path in benchmark.glob("*_ref.sv"))
    stored = [{"task_id": task, "completion": "```verilog\nmodule TopModule(); endmodule\n```"} for task in tasks]
    (tmp_path / "stored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stored))
    small.write_text(small.read_text().replace("benchmark: benchmark", "benchmark: problems"))
    make_hostile(tmp_path, log, custom=True)
    tapeout = Hostile(tmp_path, entry, log)
    assert "rank: 2" in tapeout("check", small, "--set", "train.lora.rank=2")
    assert "quickstart" in tapeout("recipes") and json.loads(tapeout("schema"))["title"] == "Recipe"
    tapeout("copy", "quickstart", "mine.yaml", "--debug")
    assert "fsdp 1" in tapeout("plan", small, "--on", "v5e-1", "--serve-on", "v6e-1", "--price", "2")
    tapeout("run", small, "--from", "data", "--to", "data", "--runs", "other", "--set", "data.compile_check=drop")
    rows = ("--model", MODEL, "--input", "rows.jsonl", "--set", "max_length=256")
    tapeout("data", *rows, "--out", "shards", "--set", "packing=none", "--set", "compile_check=drop", "--debug")
    assert len(tapeout("data", *rows, "--show", "3", "--json").splitlines()) == 3
    with served(tmp_path) as url:
        tapeout("data", "--model", MODEL, "--input", f"{url}/rows.jsonl", "--show", "1", "--html", "page.html")
    brief = ("--set", "train.lora.rank=2", "--set", "train.steps=1", "--set", "train.batch_size=2")
    tapeout("train", "--model", MODEL, "--data", "shards", "--dtype", "float32", "--out", "trained", *brief)
    merge = ("--base", MODEL, "--adapter", "trained", "--out", "merged", "--step", "1")
    assert "peak memory" in tapeout("convert", *merge, "--dry-run")
    tapeout("convert", *merge, "--probes", "shards", "--set", "verify=off")
    tapeout.serves(
        "--model", "merged/model", "--port", "0", "--name", "mine", "--set", "slots=2", "--set", "max_length=64"
    )
    tapeout("eval", "--benchmark", "problems", "--self-test", "--out", "tested")
    scored = ("--completions", "stored.jsonl", "--samples", "1", "--set", "simulators=1")
    tapeout("eval", "--benchmark", "problems", *scored, "--out", "scored")
    tapeout("baseline", "save", "scored", "--out", "baseline.json", "--force")
    reports = ("--junit", "gate.xml", "--markdown", "gate.md")
    tapeout("gate", "scored", "--min", "0", "--baseline", "baseline.json", "--max-drop", "0", *reports)
    assert tapeout("gate", "scored", "--min", "1", "--on-noise", "fail", code=1).startswith("gate: FAILED")
    assert "-- verdict\n" in tapeout("show", "scored", tasks[0], "--sample", "0", "--benchmark", "problems")
    assert json.loads(tapeout("inspect", "merged/model", "--json"))["family"] == "gemma4"
    assert tapeout.called == commands_of(typer.main.get_command(app))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart(tmp_path: Path, entry: Path, log: Path) -> None:
    make_hostile(tmp_path, log, custom=True)
    Hostile(tmp_path, entry, log)("run", "quickstart")
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()
