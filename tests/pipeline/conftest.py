"""What the conductor's tests share: the command line as a process, and a recipe small enough to run whole."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
ASSETS = REPO / "recipes" / "assets"
TEXT = """\
name: small
model:
  path: {assets}/tiny-gemma4
data:
  sources:
    - path: rows.jsonl
  max_length: 256
train:
  lora:
    rank: 4
  batch_size: 2
  steps: 6
  checkpoint_every: 2
  log_every: 1
serve:
  slots: 4
  max_length: 512
eval:
  benchmark: benchmark
  samples: 2
  max_tokens: 48
  concurrency: 2
"""
PROBLEMS, ROWS = 4, 40

Tapeout = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "120"}


@pytest.fixture
def command() -> list[str]:
    return [sys.executable, "-m", "tapeout"]


@pytest.fixture
def tapeout(command: list[str], tmp_path: Path) -> Tapeout:
    """Run the command line in the test's own folder."""

    def call(*arguments: str | Path, **changes: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *map(str, arguments)],
            cwd=tmp_path,
            env={**environment(), **changes},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A recipe of few rows, few steps and few problems, with its files, in the test's own folder."""
    with open(ASSETS / "starter" / "train.jsonl", encoding="utf-8") as rows:
        (tmp_path / "rows.jsonl").write_text("".join(next(rows) for _ in range(ROWS)), encoding="utf-8")
    (tmp_path / "benchmark").mkdir()
    problems = sorted((ASSETS / "starter" / "benchmark").glob("Prob*_prompt.txt"))[:PROBLEMS]
    for prompt in problems:
        stem = prompt.name.removesuffix("_prompt.txt")
        for suffix in ("_prompt.txt", "_ref.sv", "_test.sv"):
            name = stem + suffix
            (tmp_path / "benchmark" / name).write_bytes((prompt.parent / name).read_bytes())
    recipe = tmp_path / "small.yaml"
    recipe.write_text(TEXT.format(assets=ASSETS), encoding="utf-8")
    return recipe


@pytest.fixture
def findings() -> Callable[[Path], dict[str, object]]:
    """What a finished run found, step by step: the figures that do not depend on the clock."""

    def read(root: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for record in sorted(root.glob("*/*/record.json")):
            metrics = json.loads(record.read_text(encoding="utf-8"))["metrics"]
            kept = {name: metrics[name] for name in metrics if name.startswith("pass") or name in ("loss", "rows")}
            found[record.parent.parent.name] = kept
        return found

    return read


@pytest.fixture
def start(command: list[str], tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the command line in the test's own folder; whatever still runs at the end is killed."""
    children: list[subprocess.Popen[str]] = []

    def call(*arguments: str | Path) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [*command, *map(str, arguments)],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        children.append(child)
        return child

    yield call
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()
