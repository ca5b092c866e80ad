"""Running steps with real processes: skip, commit, interruption, death, and two at once. The data stage is the step."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import locked
from pipeline.recipe.schema import load_recipe
from pipeline.run.inputs import check_apart
from tests.pipeline.conftest import ASSETS
from tests.processes import alive, children_of, left_of

MODEL = ASSETS / "tiny-gemma4"
Start = Callable[..., "subprocess.Popen[str]"]


def listing(folder: Path) -> dict[str, int]:
    """Every file below `folder` with its time of change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def await_stage(child: "subprocess.Popen[str]", root: Path, stage: str = "data") -> int:
    """Wait until the stage's process is at work; returns its id."""
    while child.poll() is None:
        at_work = list(children_of(child.pid))
        if at_work and list(root.glob(f"{stage}/*.partial/job.json")):
            return at_work[0]
        time.sleep(0.01)
    pytest.fail(child.communicate()[0])


def test_a_step_is_committed_once_and_kept(small: Path, tmp_path: Path, tapeout):
    first = tapeout("run", small, "--to", "data")
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "runs" / "small" / "data").iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["fingerprint"] == folder.name
    assert record["metrics"]["rows"] == 40
    assert record["inputs"]["model"].endswith("recipes/assets/tiny-gemma4")
    before = listing(tmp_path / "runs" / "small")
    second = tapeout("run", small, "--to", "data")
    assert second.returncode == 0
    assert second.stderr.splitlines()[0] == f"data: kept ({folder.name})"
    assert listing(tmp_path / "runs" / "small") == before


def test_logs_are_plain_when_not_on_a_terminal(small: Path, tapeout):
    output = tapeout("run", small, "--to", "data").stderr
    assert not [c for c in output if ord(c) < 32 and c != "\n"]
    assert "rows 40" in output


def test_another_configuration_has_another_folder(small: Path, tmp_path: Path, tapeout):
    assert tapeout("run", small, "--to", "data").returncode == 0
    assert tapeout("run", small, "--to", "data", "--set", "data.seed=1").returncode == 0
    assert len(list((tmp_path / "runs" / "small" / "data").iterdir())) == 2


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_half_written(small: Path, tmp_path: Path, start: Start, tapeout, signum, code):
    child = start("run", small, "--to", "data")
    root = tmp_path / "runs" / "small"
    stage = await_stage(child, root)
    child.send_signal(signum)
    output = child.communicate()[0]
    assert child.returncode == code, output
    assert "Traceback" not in output
    assert not alive(stage)
    assert list((root / "data").iterdir()) == []
    assert tapeout("run", small, "--to", "data").returncode == 0


def test_a_killed_conductor_takes_its_stage_with_it(small: Path, tmp_path: Path, start: Start, tapeout):
    child = start("run", small, "--to", "data")
    root = tmp_path / "runs" / "small"
    stage = await_stage(child, root)
    child.kill()
    child.wait()
    assert left_of([stage]) == []
    assert not list(root.glob("data/*/record.json"))
    again = tapeout("run", small, "--to", "data")
    assert again.returncode == 0, again.stderr
    assert len(list((root / "data").iterdir())) == 1


def test_a_killed_stage_is_told_and_can_be_repeated(small: Path, tmp_path: Path, start: Start, tapeout):
    child = start("run", small, "--to", "data")
    os.kill(await_stage(child, tmp_path / "runs" / "small"), signal.SIGKILL)
    output = child.communicate()[0]
    assert child.returncode == 1
    assert "data was killed from outside (out of memory?)" in output
    assert tapeout("run", small, "--to", "data").returncode == 0


def test_two_do_not_meet(small: Path, tmp_path: Path, start: Start):
    """Runs of a recipe, and commands with one folder: the second is told, after a while."""
    root = tmp_path / "runs" / "small"
    root.mkdir(parents=True)
    flags = ("--model", MODEL, "--input", "rows.jsonl", "--out", "shards")
    with locked(root / ".lock"), locked(tmp_path / ".shards.lock"):
        seconds = [start("run", small, "--to", "data"), start("data", *flags)]
        said = [child.communicate()[0] for child in seconds]
    assert [child.returncode for child in seconds] == [2, 2]
    assert all("another tapeout process is working on this" in each for each in said)
    assert not (root / "data").exists() and not list(tmp_path.glob("shards*"))


def test_two_commands_at_once_do_the_work_once(small: Path, tmp_path: Path, start: Start):
    """Whoever comes second finds it done, or is told after a while that it is being done; nothing is left but it."""
    flags = ("data", "--model", MODEL, "--input", "rows.jsonl", "--out", "shards", "--set", "max_length=256")
    pair = [start(*flags), start(*flags)]
    said = [child.communicate()[0] for child in pair]
    codes = [child.returncode for child in pair]
    assert 0 in codes and set(codes) <= {0, 2}, said
    assert sum("data: start" in each for each in said) == 1
    assert all(code == 0 or "another tapeout process" in each for code, each in zip(codes, said, strict=True))
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark", "rows.jsonl", "small.yaml", "shards"}


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path):
    """Though its file goes and comes: many take turns, and no two are ever within."""
    within, most = [0], [0]

    def work(_number: int) -> None:
        for _ in range(20):
            with locked(tmp_path / "lock", patience_s=60):
                within[0] += 1
                most[0] = max(most[0], within[0])
                time.sleep(0)
                within[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most == [1] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "path", "runs"),
    [
        ("model.path", "model", "model/runs"),
        ("model.path", "link", "model"),
        ("data.sources.0.path", ".", "runs"),
        ("data.sources.0.path", "'**/*.jsonl'", "runs"),
        ("data.sources.0.path", "'*/*/*.json'", "runs"),
        ("train.adapter", "model", "model/below/it"),
        ("eval.benchmark", "benchmark", "benchmark/runs"),
        ("data.benchmark", "benchmark", "benchmark"),
    ],
)
def test_results_never_lie_in_what_they_come_from(small: Path, tmp_path: Path, key: str, path: str, runs: str):
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    with pytest.raises(UserError, match=f"the results would lie in what {key} reads"):
        check_apart(load_recipe(str(small), ["eval=null", f"{key}={path}"][key[:4] == "eval" :]), tmp_path / runs / "x")


@pytest.mark.parametrize("path", ["'*.jsonl'", "'*/*.jsonl'", "'[a-q]*/*/*.jsonl'", "'*/a*/*.jsonl'", "rows.jsonl"])
def test_results_may_lie_beside_it(small: Path, tmp_path: Path, path: str):
    check_apart(load_recipe(str(small), [f"data.sources.0.path={path}"]), tmp_path / "runs" / "small")


def test_a_run_within_its_model_begins_nothing(small: Path, tmp_path: Path, tapeout):
    shutil.copytree(MODEL, tmp_path / "model")
    before = listing(tmp_path)
    done = tapeout("run", small, "--runs", "model/runs", "--set", "model.path=model")
    assert done.returncode == 2 and "the results would lie in what model.path reads" in done.stderr, done.stderr
    assert listing(tmp_path) == before and not (tmp_path / "model" / "runs").exists()


@pytest.mark.parametrize("flags", [("--input", "."), ("--input", "rows.jsonl", "--model", "model")])
def test_neither_do_those_of_a_stage_alone(small: Path, tmp_path: Path, tapeout, flags: tuple[str, ...]):
    shutil.copytree(MODEL, tmp_path / "model")
    done = tapeout("data", "--model", "model", *flags, "--out", "model/out")
    assert done.returncode == 2 and " lie in " in done.stderr, done.stderr
    assert not (tmp_path / "model" / "out").exists()


def test_a_stage_alone_wants_its_inputs_first(small: Path, tmp_path: Path, tapeout):
    missing = tapeout("train", small)
    assert missing.returncode == 2
    assert missing.stderr.splitlines()[0] == (
        "error: train reads what data makes, and that is not there for this recipe"
    )
    assert missing.stderr.splitlines()[2] == f"  to do: first run: tapeout run {small} --to data"
    assert tapeout("data", small).returncode == 0
    assert list((tmp_path / "runs" / "small" / "data").glob("*/record.json"))


def test_python_m_stage_is_the_command(small: Path, tmp_path: Path, command: list[str], start: Start):
    command[2] = "data"
    child = start(small)
    assert child.wait() == 0, child.communicate()[0]
    assert list((tmp_path / "runs" / "small" / "data").glob("*/record.json"))


def test_the_data_stage_from_flags_alone(small: Path, tmp_path: Path, tapeout):
    flags = ("data", "--model", MODEL, "--input", "rows.jsonl", "--out", "shards", "--set", "max_length=256")
    first = tapeout(*flags)
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "shards" / "record.json").read_text())["config"]["max_length"] == 256
    assert not (tmp_path / "shards.partial").exists()
    assert "kept" in tapeout(*flags).stderr
    other = tapeout(*flags, "--set", "seed=3")
    assert other.returncode == 2
    assert "the output folder exists and is not empty" in other.stderr
