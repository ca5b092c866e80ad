"""Steps from the last checkpoint to the end, or to a signal: batch, step, log, save, validate."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from common.errors import UserError
from common.progress import bar, log
from train.checkpoint import Checkpoints
from train.optimizer import schedule
from train.setup import Setup
from train.step import compile_step, start_state
from train.watch.finite import check_loss, check_state
from train.watch.log import TrainingLog, read_log
from train.watch.stopping import Stop, noted

VALIDATION_BATCHES = 50


class Rate:
    """Tokens a second of the steps alone: what is validated or saved in between does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.tokens, self.apart, self.since = 0, 0.0, clock()

    def take(self) -> float:
        """The rate since it was last taken."""
        now = self.clock()
        rate = self.tokens / max(now - self.since - self.apart, 1e-9)
        self.tokens, self.apart, self.since = 0, 0.0, now
        return rate

    @contextmanager
    def paused(self) -> Iterator[None]:
        begin = self.clock()
        yield
        self.apart += self.clock() - begin


class Loop:
    """One run. Its checkpoints and log are in `out`; a loss or a state that is not finite ends it, unsaved."""

    def __init__(self, setup: Setup, out: Path):
        self.setup, self.config, self.batches = setup, setup.config, setup.batches
        self.checkpoints = Checkpoints(out / "checkpoints", self.config.keep_checkpoints, setup.settings)
        self.path = out / "log.jsonl"

    def run(self) -> None:
        config, setup, last = self.config, self.setup, self.setup.steps
        done, trained, opt_state, batches = self.start()
        train_step = compile_step(setup.trainer, trained, opt_state)
        learning_rate, rate = schedule(config, last), Rate()
        earlier: jax.Array | None = None
        opened = closing(self.checkpoints), closing(TrainingLog(self.path, done)), bar("train", last - done, "steps")
        with noted() as stop, opened[0], opened[1] as journal, opened[2] as progress:
            if self.owes_validation(done):
                with rate.paused():
                    self.validate(trained, done, journal, stop)
                if stop.asked is not None:
                    return
            for step in range(done + 1, last + 1):
                batch = next(batches)
                check_supervised(batch, step)
                rate.tokens += int((batch["segments"] > 0).sum())
                on_devices = self.batches.on_devices(batch)
                trained, opt_state, metrics = train_step(trained, opt_state, setup.frozen, on_devices)
                if earlier is not None:  # one step late: the devices have work while the host looks
                    check_loss(earlier, step - 1)
                earlier, note = metrics["loss"], ""
                logs, saves, validates = (self.is_due(step, every) for every in self.intervals)
                if logs or saves or validates:
                    check_metrics(metrics, step)
                if logs:
                    line = {name: float(value) for name, value in metrics.items()}
                    line |= {"learning_rate": float(np.asarray(learning_rate(step - 1)))}
                    journal.write(step=step, tokens_per_second=(per_second := rate.take()), **line)
                    note = f"loss {line['loss']:.3f}, {per_second:.0f} tokens/s"
                with rate.paused():
                    if saves:
                        self.save(step, trained, opt_state, batches)
                    if validates:
                        self.validate(trained, step, journal, stop)
                progress.advance(1, note)
                if stop.asked is not None:
                    if not saves:
                        check_metrics(metrics, step)
                        self.save(step, trained, opt_state, batches)
                    log(f"train: {stop.asked.name}: step {step} is saved, the same command goes on from there")
                    break

    def save(self, step: int, trained: nnx.State, opt_state: Any, batches: Any) -> None:
        check_state(trained, opt_state, f"after step {step}")
        self.checkpoints.save(step, trained, opt_state, batches.get_state())

    @property
    def intervals(self) -> tuple[int, int, int | None]:
        """Steps between log lines, checkpoints and validations."""
        return self.config.log_every, self.config.checkpoint_every, self.config.validate_every

    def is_due(self, step: int, every: int | None) -> bool:
        return step == self.setup.steps or (every is not None and step % every == 0)

    def start(self) -> tuple[int, nnx.State, Any, Any]:
        """(steps done, trained, optimizer state, batches): of the last checkpoint, or of the beginning."""
        trained = self.setup.trained
        opt_state = start_state(self.setup.trainer, trained, self.setup.mesh)
        batches = self.batches.open("train", self.config.seed)
        fix = "train without it, or export it again"
        check_state(trained, (), f"in {self.config.adapter or 'the weights'} before the first step", fix)
        if (found := self.checkpoints.restore(trained, opt_state)) is None:
            return 0, trained, opt_state, batches
        done, trained, opt_state, loader = found
        check_state(trained, opt_state, f"in the checkpoint of step {done}", "delete it: it is of no use")
        batches.set_state(loader)
        log(f"train: resuming at step {done}")
        return done, trained, opt_state, batches

    def owes_validation(self, done: int) -> bool:
        """Whether the checkpoint of step `done` was saved, and its validation cut off."""
        if done == 0 or not self.is_due(done, self.config.validate_every):
            return False
        return not any(line["step"] == done and "validation_loss" in line for line in read_log(self.path))

    def validate(self, trained: nnx.State, step: int, journal: TrainingLog, stop: Stop) -> None:
        """Mean loss per supervised token over the validation rows (each at most once); none where a signal comes.
        Raises UserError for a loss that is not finite."""
        if self.batches.count("validation") == 0:
            return
        total = tokens = 0.0
        for batch in islice(self.batches.open("validation", 0, epochs=1), VALIDATION_BATCHES):
            part = self.setup.trainer.evaluate(trained, self.setup.frozen, self.batches.on_devices(batch))
            total, tokens = total + float(part[0]), tokens + float(part[1])
            if stop.asked is not None:
                return
        if not tokens:
            raise UserError(
                f"the first {VALIDATION_BATCHES} batches of validation have no supervised token",
                where=str(self.batches.data / "validation"),
                fix="check the rows' roles and masks, then run the data stage again",
            )
        check_loss(total / tokens, step, "validation loss")
        journal.write(step=step, validation_loss=total / tokens)


def check_metrics(metrics: dict[str, jax.Array], step: int) -> None:
    check_loss(metrics["loss"], step)
    check_loss(metrics["grad_norm"], step, "gradient's norm")


def check_supervised(batch: dict[str, np.ndarray], step: int) -> None:
    """Raises UserError for a batch without a target, of whose step nothing can be said. Of several processes, another
    one's share may have some."""
    inside = batch["segments"][:, 1:] == batch["segments"][:, :-1]
    if jax.process_count() == 1 and not (batch["mask"][:, 1:] & inside).any():
        raise UserError(
            f"the batch of step {step} has no supervised token",
            where="train.batch_size",
            fix="use larger batches, or check the rows' masks and run the data stage again",
        )
