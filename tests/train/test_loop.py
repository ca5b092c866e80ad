"""The loop: nothing that is not finite is saved or gone on from, and its figures are those of the steps alone."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from common.errors import UserError
from models.text.packed_rows import PackedRow, write_shards
from tests.train.conftest import LENGTH, conversations, packed, trained_arrays
from train.config import TrainConfig, TrainInputs
from train.loop import Loop, Rate, check_supervised
from train.names import flat_names, with_values
from train.setup import Batches, Setup, prepare
from train.step import start_state
from train.watch.finite import check_loss, check_state
from train.watch.log import TrainingLog, read_log
from train.watch.stopping import Stop, noted

SMALL = {"lora": {"rank": 2, "targets": ["q"]}, "batch_size": 4, "remat": "none", "warmup_steps": 0}


def small(**more: Any) -> TrainConfig:
    return TrainConfig.model_validate({**SMALL, **more})


@pytest.fixture(scope="module")
def setup(base: Path, data: Path) -> Setup:
    return prepare(small(steps=4), TrainInputs(model=str(base), data=str(data)))


def test_a_run_that_ends_in_nan_leaves_only_finite_checkpoints(base: Path, tmp_path: Path) -> None:
    """A checkpoint every step, a log line at the end; a token whose embedding overflows spoils one batch."""
    spoilt, token = tmp_path / "base", 2  # of no conversation
    shutil.copytree(base, spoilt)
    tensors = load_file(spoilt / "model.safetensors")
    (table,) = [tensors[name] for name in tensors if name.endswith("embed_tokens.weight")]
    table[token], table[token, 0] = 0, 2e38  # times the root of the width; its logit is capped
    save_file(tensors, spoilt / "model.safetensors", {"format": "pt"})
    rows = [packed(conversations(24)[2 * i : 2 * i + 2]) for i in range(12)]
    rows[5].ids[0] = token
    write_shards(rows, tmp_path / "data" / "train")
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"max_length": LENGTH}))
    config = small(steps=12, batch_size=2, log_every=100, checkpoint_every=1, keep_checkpoints=2)
    inputs = TrainInputs(model=str(spoilt), data=str(tmp_path / "data"))
    with pytest.raises(UserError, match="the loss is nan at step") as told:
        Loop(prepare(config, inputs), tmp_path).run()
    bad = int(told.value.what.rsplit(" ", 1)[1])
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [step for step in (bad - 2, bad - 1) if step > 0]
    if kept:
        assert all(np.isfinite(array).all() for array in trained_arrays(tmp_path).values())
    assert Loop(prepare(config, inputs), tmp_path).start()[0] == bad - 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_state_that_is_not_finite_is_named(setup: Setup, bad: float) -> None:
    names = list(flat_names(setup.trained))
    opt_state = start_state(setup.trainer, setup.trained, setup.mesh)
    check_state(setup.trained, opt_state, "now")
    arrays = flat_names(setup.trained)
    spoiled = with_values(setup.trained, {**arrays, names[1]: arrays[names[1]].at[0, 0, 0].set(bad)})
    with pytest.raises(UserError, match="NaN or infinity now") as told:
        check_state(spoiled, opt_state, "now")
    assert told.value.where == names[1]
    moments = jax.tree.map(
        lambda a: a.at[(0,) * a.ndim].set(bad) if a.shape == arrays[names[0]].shape else a, opt_state
    )
    with pytest.raises(UserError) as told:
        check_state(setup.trained, moments, "now")
    assert told.value.where.startswith(f"{names[0]} (mu of the optimizer)")
    with pytest.raises(UserError, match="the validation loss is"):
        check_loss(bad, 3, "validation loss")


def test_no_run_goes_on_from_a_checkpoint_that_is_not_finite(setup: Setup, tmp_path: Path) -> None:
    """As an earlier version may have left it."""
    arrays = flat_names(setup.trained)
    name = next(iter(arrays))
    spoiled = with_values(setup.trained, {**arrays, name: jnp.full_like(arrays[name], jnp.nan)})
    opt_state = start_state(setup.trainer, setup.trained, setup.mesh)
    Loop(setup, tmp_path).checkpoints.save(2, spoiled, opt_state, {})
    with pytest.raises(UserError, match="in the checkpoint of step 2") as told:
        Loop(setup, tmp_path).start()
    assert told.value.where == name and (tmp_path / "checkpoints" / "2").is_dir()


def test_validation_and_saving_do_not_count_as_training() -> None:
    now = [100.0]
    rate = Rate(lambda: now[0])
    for paused in (5.0, 0.0, 50.0):
        rate.tokens += 30
        now[0] += 2.0
        with rate.paused():
            now[0] += paused
    assert rate.take() == pytest.approx(90 / 6)
    rate.tokens, now[0] = 8, now[0] + 4
    assert rate.take() == pytest.approx(2), "each time is counted once"


@dataclasses.dataclass(frozen=True)
class Signalling(Batches):
    """Sends this process a real signal when as many batches as `at` says were put on the devices."""

    signum: int = 0
    at: int = 0
    seen: list[None] = dataclasses.field(default_factory=list)

    def on_devices(self, batch: dict[str, np.ndarray]) -> Any:
        self.seen.append(None)
        if len(self.seen) == self.at:
            os.kill(os.getpid(), self.signum)
        return super().on_devices(batch)


def test_signals_save_and_the_run_goes_on_bit_for_bit(setup: Setup, tmp_path: Path) -> None:
    """While a step runs, while one is validated, while the last one runs; at none of them was one to be saved."""

    def loop(out: str, **at: Any) -> Loop:
        (tmp_path / out).mkdir(exist_ok=True)
        config = small(steps=4, log_every=1, checkpoint_every=9, validate_every=3)
        batches = Signalling(**vars(setup.batches), **at)
        trained = jax.tree.map(jnp.copy, setup.trained)
        return Loop(dataclasses.replace(setup, config=config, batches=batches, trained=trained), tmp_path / out)

    def stop(_signum: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for signum, at, saved in ((signal.SIGTERM, 2, 2), (signal.SIGINT, 2, 3), (signal.SIGTERM, 3, 4)):
            with pytest.raises(KeyboardInterrupt):
                loop("cut", signum=signum, at=at).run()
            assert signal.getsignal(signal.SIGTERM) is stop
            assert max(map(int, os.listdir(tmp_path / "cut" / "checkpoints"))) == saved
    finally:
        signal.signal(signal.SIGTERM, before)
    for out in ("cut", "whole"):
        loop(out).run()
    one, other = (trained_arrays(tmp_path / out) for out in ("cut", "whole"))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    one, other = (
        [
            [line["step"], line.get("loss"), line.get("validation_loss")]
            for line in read_log(tmp_path / out / "log.jsonl")
        ]
        for out in ("cut", "whole")
    )
    assert one == other and [line[0] for line in one] == [1, 2, 3, 3, 4, 4]


def test_a_second_signal_ends_it_at_once_and_an_ignored_one_stays_ignored() -> None:
    with pytest.raises(KeyboardInterrupt), noted() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked is signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_batch_without_a_target_is_an_error() -> None:
    zeros = {name: np.zeros((2, 6), np.int32) for name in ("segments", "mask")}
    segments, mask = np.array([[1, 1, 2, 2, 0, 0]] * 2), np.zeros((2, 6), bool)
    mask[:, [0, 2]] = True
    for batch in (zeros, {"segments": segments, "mask": mask}):
        with pytest.raises(UserError, match="the batch of step 7 has no supervised token"):
            check_supervised(batch, 7)
    mask[1, 3] = True
    check_supervised({"segments": segments, "mask": mask}, 7)


def test_validation_weighs_by_supervised_tokens(setup: Setup, tmp_path: Path) -> None:
    """Rows of very different numbers of answers: the loss is the mean over tokens, and not over batches."""
    parts = conversations(20)
    rows = [packed(parts[i : i + 1 + (i % 3 == 0) * 2]) for i in range(9)]
    rows = [
        PackedRow(row.ids, row.mask if i % 2 else row.mask & (np.arange(len(row.ids)) < 12), row.lengths)
        for i, row in enumerate(rows)
    ]
    folder = tmp_path / "data"
    for split in ("train", "validation"):
        write_shards([PackedRow(r.ids[:LENGTH], r.mask[:LENGTH], _cut(r.lengths)) for r in rows], folder / split)
    found = []
    for size in (1, 9):
        batches = dataclasses.replace(setup.batches, data=folder, batch_size=size)
        journal = TrainingLog(tmp_path / f"{size}.jsonl", 0)
        Loop(dataclasses.replace(setup, batches=batches), tmp_path).validate(setup.trained, 1, journal, Stop())
        journal.close()
        found.append(read_log(tmp_path / f"{size}.jsonl")[-1]["validation_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def _cut(lengths: np.ndarray) -> np.ndarray:
    ends = np.minimum(np.cumsum(lengths), LENGTH)
    return np.diff(ends, prepend=0)[np.diff(ends, prepend=0) > 0]


@pytest.mark.parametrize("line", [b'{"step": 1, "lo\xff": 1}', b'{"step": 1', b"7", b'"x"'])
def test_a_damaged_log_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n' + line)
    assert read_log(path) == [{"step": 1, "loss": 2.0}]
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n' + line + b"\n")
    with pytest.raises(UserError, match="log is damaged") as told:
        read_log(path)
    assert told.value.where == f"{path}:2"
