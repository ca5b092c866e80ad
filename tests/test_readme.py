"""What README.md and docs/ tell people to type: every command and flag is one that there is, and README's are run."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

from pipeline.cli.app import app

REPO = Path(__file__).resolve().parents[1]
ASSETS = REPO / "recipes" / "assets"
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
TOOLS = ("tapeout", "python", "make", "cp")


def typed(page: Path) -> list[str]:
    """The commands of a page's code blocks, in their order, without what is said of them."""
    whole = re.sub(r" \\\n\s+", " ", page.read_text(encoding="utf-8"))  # one that goes on in the next line
    lines = [line[4:] for line in whole.splitlines() if line.startswith("    ")]
    return [re.split(r"\s{2,}#|\s+# ", line)[0].rstrip() for line in lines if line.split(" ")[0] in TOOLS]


def spoken() -> Iterator[tuple[str, str]]:
    """(page, command) of everything that is typed anywhere."""
    for page in PAGES:
        for line in typed(page):
            for part in re.split(r"\s(?:>|\||&&)\s", line):
                if part.startswith("tapeout "):
                    yield page.name, part


@pytest.mark.parametrize(("page", "line"), sorted(set(spoken())))
def test_every_command_and_flag_is_one_that_there_is(page: str, line: str) -> None:
    """Read by the command line's own parser, up to where it would begin to work."""
    words = shlex.split(line)[1:]
    group: Any = typer.main.get_command(app)  # typer has a click of its own
    context: Any = click.Context(group, info_name="tapeout")
    while hasattr(group, "resolve_command"):
        name, group, words = group.resolve_command(context, words)
        assert group is not None, line
        context = click.Context(group, info_name=name, parent=context)
    if "..." not in words and "[OPTIONS]" not in words:
        group.make_parser(context).parse_args(words)


def test_pages_are_found() -> None:
    assert len(list(spoken())) > 40 and {page for page, _ in spoken()} >= {"README.md", "data.md", "convert.md"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Shell:
    """A person's shell in `folder`, with our command on its PATH."""

    def __init__(self, folder: Path):
        self.folder = folder
        bin_ = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.env = {**os.environ, "PATH": bin_, "PYTHONPATH": str(REPO), "NO_COLOR": "1"}

    def run(self, line: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode in codes and "Traceback" not in done.stderr, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def serving(self, line: str, port: int) -> Iterator[None]:
        """Within, what `line` serves answers; it is stopped with SIGTERM, and ends well."""
        server = subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.env)
        try:
            while True:
                assert server.poll() is None, line
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
                        assert reply.status == 200
                    break
                except OSError:
                    time.sleep(0.2)
            yield
        finally:
            server.terminate()
            assert server.wait(60) == 0


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "here").mkdir()
    return Shell(tmp_path / "here")


def few_problems(folder: Path) -> None:
    folder.mkdir()
    for path in sorted((ASSETS / "starter" / "benchmark").glob("Prob00[12]*")):
        shutil.copy(path, folder)


SMALLER = {
    "path: assets/": f"path: {ASSETS}/",
    "steps: 300": "steps: 4",
    "warmup_steps: 20": "warmup_steps: 1",
    "checkpoint_every: 50": "checkpoint_every: 2",
    "samples: 5": "samples: 1",
    "max_tokens: 256": "max_tokens: 24",
    "slots: 64": "slots: 4",
    "min: 0.6": "min: 0.0",
}
"""What a person with little time edits in the copy."""


def edit(recipe: Path, benchmark: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    for old, new in SMALLER.items():
        text = text.replace(old, new)
    recipe.write_text(re.sub(r"benchmark: .*", f"benchmark: {benchmark}", text), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_your_own_recipe(shell: Shell, tmp_path: Path) -> None:
    """Every command of the section, and the gate's, in their order; `mine.yaml` is edited to be small."""
    few_problems(tmp_path / "benchmark")
    port, lines = (
        free_port(),
        [line for line in typed(PAGES[0]) if "mine" in line or line.endswith(("recipes", "json"))],
    )
    assert len(lines) >= 8 and any("gate" in line for line in lines)
    for line in lines:
        line = line.replace("/big/disk", str(tmp_path / "disk")).replace("8000", str(port))
        if line.startswith("tapeout serve"):
            with shell.serving(line, port):
                continue
        if line.startswith("tapeout gate"):
            shell.run("tapeout baseline save runs/mine")
        shell.run(line)
        if line.startswith("tapeout copy"):
            edit(shell.folder / "mine.yaml", tmp_path / "benchmark")
    assert (shell.folder / "recipe.schema.json").stat().st_size > 1000 and (shell.folder / "baseline.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("spelt", ["{}", "./{}", "../here/{}"])
def test_one_stage_by_hand(shell: Shell, tmp_path: Path, spelt: str) -> None:
    """From flags, with relative paths of every kind; each result is what an absolute path gives."""
    shutil.copytree(ASSETS / "tiny-gemma4", tmp_path / "model")
    few_problems(tmp_path / "benchmark")
    with open(ASSETS / "starter" / "train.jsonl", encoding="utf-8") as rows:
        (shell.folder / "rows.jsonl").write_text("".join(next(rows) for _ in range(40)), encoding="utf-8")
    port = free_port()
    made = {
        "data": spelt.format("d"),
        "train": spelt.format("t"),
        "convert": spelt.format("c"),
        "eval": spelt.format("e"),
    }
    named: dict[str, Callable[[str], str]] = {
        "--model": lambda stage: {"serve": f"{made['convert']}/model", "eval": "model"}.get(stage, "../model"),
        "--base": lambda stage: "../model",
        "--data": lambda stage: made["data"],
        "--adapter": lambda stage: made["train"],
        "--benchmark": lambda stage: "../benchmark",
        "--out": lambda stage: made[stage],
    }
    quick = {
        "data": " --set max_length=256",
        "train": " --set steps=3 --set batch_size=2 --set checkpoint_every=2",
        "serve": " --set slots=2 --set max_length=512",
        "eval": " --set samples=1 --set max_tokens=16",
    }
    lines = [line for line in typed(PAGES[0]) if re.search(r"--\w+ (DIR|NAME)", line)]
    assert [line.split()[1] for line in lines] == ["data", "train", "convert", "serve", "eval"]
    for line in lines:
        stage = line.split()[1]
        for flag in set(re.findall(r"(--\w+) (?:DIR|NAME)", line)):
            line = re.sub(f"{flag} (?:DIR|NAME)", f"{flag} {named[flag](stage)}", line)
        line = line.replace("8000", str(port)) + quick.get(stage, "")
        if stage == "serve":
            served = line
        elif stage == "eval":
            with shell.serving(served, port):
                shell.run(line)
        else:
            shell.run(line)
    shell.run(f"tapeout convert --base {tmp_path}/model --adapter {shell.folder}/t --out {tmp_path}/absolute")
    weights = [place / "model" / "model.safetensors" for place in (shell.folder / "c", tmp_path / "absolute")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    summary = json.loads((shell.folder / "e" / "summary.json").read_text())
    assert summary["samples"] == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_how_the_tiny_model_was_made(shell: Shell) -> None:
    """Its commands with fewer documents; the two recipes, which take hours, are checked instead of run."""
    lines = [line for line in typed(PAGES[0]) if "starter" in line or "tiny" in line]
    assert len(lines) >= 7
    for line in lines:
        line = re.sub(r"--(documents|rows) \d+", r"--\1 60", line).replace("recipes/assets/tiny-gemma4", "tiny")
        line = line.replace("tapeout run", "tapeout check")
        if not line.startswith("cp "):
            shell.run(line, (0, 2) if "check" in line else (0,))
    assert (shell.folder / "tiny" / "tokenizer.json").is_file() and (shell.folder / "echoes.jsonl").is_file()
