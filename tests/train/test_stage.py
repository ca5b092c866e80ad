"""The stage as a process: it learns, goes on bit for bit after kill -9, and says what is wrong."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.train.conftest import log_lines, trained_arrays

Job = Callable[..., tuple[Path, Path]]
Start = Callable[..., subprocess.Popen[str]]
TIMELESS = ("step", "loss", "grad_norm", "validation_loss")


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return err


@pytest.fixture(scope="module")
def whole(job_in: Job, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run on one device leaves that nothing disturbed."""
    path, out = job_in(tmp_path_factory.mktemp("whole"), "one")
    finish(start(path))
    return out


def waits_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not (path.is_file() and path.stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)


def test_a_run_that_is_stopped_and_killed_goes_on_bit_for_bit(job: Job, start: Start, whole: Path) -> None:
    """SIGTERM after its first step: saved; kill -9 after a checkpoint; the same command each time."""
    cut, cut_out = job("cut")
    process = start(cut)
    waits_for(cut_out / "log.jsonl", process)
    process.terminate()
    assert "SIGTERM: step" in finish(process, code=143)
    process = start(cut)
    waits_for(cut_out / "checkpoints" / "4" / "digests.json", process)
    process.kill()
    process.communicate()
    assert "resuming at step" in finish(start(cut))
    want, got = trained_arrays(whole), trained_arrays(cut_out)
    assert want.keys() == got.keys()
    assert all(want[name].tobytes() == got[name].tobytes() for name in want)
    lines = [[{k: line[k] for k in TIMELESS if k in line} for line in log_lines(out)] for out in (whole, cut_out)]
    assert lines[0] == lines[1]


def test_the_loss_falls(job: Job, start: Start) -> None:
    options = {"remat": "none", "scan_layers": False, "log_every": 10, "checkpoint_every": 200}
    path, out = job("learn", method="full", init="random", steps=200, learning_rate=0.01, **options)
    finish(start(path))
    losses = [line["loss"] for line in log_lines(out) if "loss" in line]
    assert np.mean(losses[-3:]) < losses[0] - 0.5


def test_every_adapter_weight_moves(whole: Path) -> None:
    arrays = trained_arrays(whole)
    assert {name.rsplit(".", 1)[0] for name in arrays} == {
        f"{kind}.{target}" for kind in ("sliding", "global") for target in ("q", "kv", "o", "gate_up", "down")
    }
    for name, value in arrays.items():
        if name.endswith("lora_b"):
            assert all(np.abs(layer).max() > 0 for layer in value), f"{name}: B starts at zero and must have moved"


def test_four_devices_learn_what_one_does(job: Job, start: Start, whole: Path) -> None:
    four, four_out = job("four", hardware={"mesh": {"fsdp": 2, "tp": 2}, "replicate": "kv"})
    finish(start(four, devices=4))
    want, got = trained_arrays(whole), trained_arrays(four_out)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "devices", "message"),
    [
        ({"hardware": {"mesh": {"fsdp": 3}}}, 1, "the mesh fsdp=3 has 3 places, but there are 1 devices"),
        ({"hardware": {"mesh": {"tp": 2}}}, 2, "num_global_key_value_heads = 1: tp = 2 needs replication"),
        (
            {"batch_size": 3, "hardware": {"mesh": {"fsdp": 2}}},
            2,
            "batch_size 3 does not divide over data x fsdp = 2 devices",
        ),
        ({"init": "random"}, 1, "an adapter needs a trained base"),
    ],
)
def test_what_is_wrong_is_said(job: Job, start: Start, changes: dict, devices: int, message: str) -> None:
    path, _ = job("wrong", **changes)
    err = finish(start(path, devices), code=2)
    assert message in err and "Traceback" not in err
