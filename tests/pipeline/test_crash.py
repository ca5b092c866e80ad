"""kill -9 at ten random moments, spread over the steps, each followed by the same command: the score stays the same."""

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TARGETS = ("data", "data", "eval-base", "eval-base", "train", "train", "train", "convert", "serve", "eval")
LONGEST_DELAY_S = 3.0
STEP_TIMEOUT_S = 300.0
SEED = 20261123

Start = Callable[..., "subprocess.Popen[str]"]


def arguments(recipe: Path, name: str) -> tuple[str, ...]:
    return ("run", str(recipe), "--set", f"name={name}")


def reached(root: Path, step: str) -> bool:
    """Whether `step` has begun or is done, from the folders that it leaves."""
    return any((root / step).glob("*")) or any((root / ".scratch").glob(f"{step.replace('eval', 'serve')}-*"))


def kill_at(child: "subprocess.Popen[str]", root: Path, step: str, delay: float) -> None:
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while not reached(root, step) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(delay)
    child.kill()
    child.wait()


def completions(root: Path) -> dict[str, list[str]]:
    """What each model wrote, in the order of problems and samples."""
    found = {}
    for path in sorted(root.glob("eval*/*/samples.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows.sort(key=lambda row: (row["task_id"], row["sample"]))
        found[path.parent.parent.name] = [row["completion"] for row in rows]
    return found


def records_are_whole(root: Path) -> None:
    """A folder without `.partial` in its name has a record that names it."""
    for folder in root.glob("*/*"):
        if folder.is_dir() and folder.parent.name != ".scratch" and not folder.name.endswith(".partial"):
            assert json.loads((folder / "record.json").read_text(encoding="utf-8"))["fingerprint"] == folder.name


@pytest.mark.timeout(1800)
def test_killed_ten_times_is_the_same_score(small: Path, tmp_path: Path, tapeout, start: Start, findings):
    calm = tapeout(*arguments(small, "calm"))
    assert calm.returncode == 0, calm.stderr
    chance = random.Random(SEED)
    root = tmp_path / "runs" / "stormy"
    for step in TARGETS:
        kill_at(start(*arguments(small, "stormy")), root, step, chance.uniform(0.0, LONGEST_DELAY_S))
        records_are_whole(root)
    stormy = tapeout(*arguments(small, "stormy"))
    assert stormy.returncode == 0, stormy.stderr
    assert findings(root) == findings(tmp_path / "runs" / "calm")
    assert set(findings(root)) == {"data", "eval-base", "train", "convert", "serve", "eval"}
    assert completions(root) == completions(tmp_path / "runs" / "calm")
    assert not (root / ".scratch").exists()
    assert not list(root.rglob("*.partial"))
