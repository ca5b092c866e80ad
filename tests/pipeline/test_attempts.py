"""An attempt that was cut off: gone on with by the same step, never thrown away for another."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.digests.known import Digests
from common.errors import UserError
from pipeline.run.alone import stage_step
from pipeline.run.attempts import JOB, differences, make_way
from pipeline.run.graph import Step, identity_of
from tests.pipeline.conftest import ASSETS, Tapeout
from train.config import TrainConfig

DONE = {"train": "checkpoints/5/trained/x", "convert": "progress.jsonl", "eval": "samples.jsonl"}


def step_of(out: Path, model: str = "a", stage: str = "train", **config: Any) -> Step:
    section, seen = TrainConfig.model_validate(config), {"model": {"digest": model}, "data": {"digest": "d"}}
    return Step(stage, stage, section, {}, identity_of(stage, section, seen, Digests()), out)


def attempt(step: Step, *files: str) -> Path:
    """What `step` leaves when it is killed."""
    partial = step.final.with_name(step.final.name + ".partial")
    partial.mkdir()
    job = {"fingerprint": step.fingerprint, "identity": step.identity, "config": step.config.model_dump(mode="json")}
    (partial / JOB).write_text(json.dumps(job))
    for name in files:
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(b"x")
    return partial


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", DONE)
def test_the_same_step_goes_on(tmp_path: Path, stage: str) -> None:
    partial = attempt(step_of(tmp_path / "t", stage=stage), DONE[stage])
    before = content(partial)
    make_way(partial, step_of(tmp_path / "t", stage=stage))
    assert content(partial) == before


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"steps": 4000}, "train.steps: it was 3000, it is 4000"),
    ({"steps": 3000, "lora": {"rank": 4}}, "train.lora.rank: it was 16, it is 4"),
    (
        {"steps": 3000, "lora": {"targets": ["q"]}},
        "train.lora.targets: it was ['q', 'kv', 'o', 'gate_up', 'down'], it is",
    ),
    ({"steps": 3000, "seed": 1}, "train.seed: it was 0, it is 1"),
    ({"steps": 3000, "model": "b"}, "inputs.model: its content has changed"),
    ({"steps": 3000, "checkpoint_every": 7}, "train.checkpoint_every: it was 100, it is 7"),
]


@pytest.mark.parametrize(("changes", "line"), CHANGES)
def test_other_settings_are_named_and_nothing_is_deleted(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    partial = attempt(step_of(tmp_path / "t", steps=3000), DONE["train"], "log.jsonl")
    before = content(partial)
    with pytest.raises(UserError) as told:
        make_way(partial, step_of(tmp_path / "t", **changes))
    assert line in told.value.what and told.value.where == str(partial) and "--out" in told.value.fix
    assert content(partial) == before


@pytest.mark.parametrize("stage", DONE)
@pytest.mark.parametrize("other", ["data", "train", "eval"])
def test_work_of_another_stage_is_kept_too(tmp_path: Path, stage: str, other: str) -> None:
    partial = attempt(step_of(tmp_path / "t", stage=stage), DONE[stage])
    before = content(partial)
    with pytest.raises(UserError, match="not thrown away"):
        make_way(partial, step_of(tmp_path / "t", stage=other, steps=1))
    assert content(partial) == before


@pytest.mark.parametrize("files", [(), ("log.jsonl",), ("checkpoints/6.orbax-checkpoint-tmp/x",), ("shard.bin",)])
def test_what_holds_no_finished_work_makes_way(tmp_path: Path, files: tuple[str, ...]) -> None:
    partial = attempt(step_of(tmp_path / "t", steps=3), *files)
    make_way(partial, step_of(tmp_path / "t", steps=4))
    assert not partial.exists()


SPOILT: dict[str, Callable[[Path], object]] = {
    "gone": lambda job: job.unlink(),
    "empty": lambda job: job.write_bytes(b""),
    "cut": lambda job: job.write_bytes(job.read_bytes()[:40]),
    "no fingerprint": lambda job: job.write_text("{}"),
    "a list": lambda job: job.write_text("[1]"),
    "another's": lambda job: job.write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_cannot_be_accounted_for_is_set_aside(tmp_path: Path, kind: str) -> None:
    for number in (1, 2):
        partial = attempt(step_of(tmp_path / "t"), "checkpoints/5/trained/x", "notes.txt")
        SPOILT[kind](partial / JOB)
        before = content(partial)
        make_way(partial, step_of(tmp_path / "t"))
        assert not partial.exists() and content(tmp_path / f"t.old-{number}") == before


def test_many_differences_are_cut(tmp_path: Path) -> None:
    step = step_of(tmp_path / "t", steps=1, seed=1, batch_size=1, learning_rate=1, log_every=3, epochs=2, clip_norm=2)
    lines = differences({"identity": step_of(tmp_path / "t").identity}, step)
    assert len(lines) == 6 and lines[-1] == "and 1 more", "log_every cannot change a result"


def flags_of(tmp_path: Path) -> list[str]:
    return [
        "train",
        "--model",
        str(ASSETS / "tiny-gemma4"),
        "--data",
        str(tmp_path / "d"),
        "--out",
        str(tmp_path / "t"),
    ]


def test_the_command_refuses_before_any_work(tmp_path: Path, tapeout: Tapeout) -> None:
    (tmp_path / "d").mkdir()
    partial = attempt(step_of(tmp_path / "t", steps=3000), DONE["train"])
    before = content(partial)
    done = tapeout(*flags_of(tmp_path), "--set", "train.steps=4000")
    assert done.returncode == 2 and "train.steps: it was 3000, it is 4000" in done.stderr
    assert content(partial) == before and not (tmp_path / "t").exists()


@pytest.mark.parametrize("stage", ["train", "convert"])
def test_a_note_beside_the_model_changes_no_step(tmp_path: Path, stage: str) -> None:
    shutil.copytree(ASSETS / "tiny-gemma4", tmp_path / "model")
    inputs = {"model" if stage == "train" else "base": str(tmp_path / "model")}
    before, _ = stage_step(stage, {}, inputs, [], tmp_path / "t")
    partial = attempt(before, DONE[stage])
    kept = content(partial)
    (tmp_path / "model" / "NOTES.txt").write_text("about this model")
    make_way(partial, stage_step(stage, {}, inputs, [], tmp_path / "t")[0])
    assert content(partial) == kept
    with open(tmp_path / "model" / "model.safetensors", "ab") as weights:
        weights.write(b"x")
    with pytest.raises(UserError, match="its content has changed"):
        make_way(partial, stage_step(stage, {}, inputs, [], tmp_path / "t")[0])


@pytest.mark.slow
def test_a_killed_training_outlives_other_settings(
    tmp_path: Path, tapeout: Tapeout, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    rows = str(ASSETS / "starter" / "train.jsonl")
    data = ["data", "--model", str(ASSETS / "tiny-gemma4"), "--input", rows, "--out", str(tmp_path / "d")]
    assert tapeout(*data).returncode == 0
    one = [*flags_of(tmp_path), "--set", "train.steps=20", "--set", "train.checkpoint_every=2"]
    child = start(*one)
    while not (tmp_path / "t.partial" / "checkpoints" / "4").is_dir():
        assert child.poll() is None
        time.sleep(0.05)
    child.kill()
    child.wait()
    names = set(content(tmp_path / "t.partial"))
    other = tapeout(*one, "--set", "train.learning_rate=0.01")
    assert other.returncode == 2 and "train.learning_rate: it was 0.0001, it is 0.01" in other.stderr
    assert set(content(tmp_path / "t.partial")) == names
    again = tapeout(*one)
    assert again.returncode == 0 and "resuming at step" in again.stderr, again.stderr
