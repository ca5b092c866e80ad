"""The train stage: base model and packed shards to Orbax checkpoints of the trained weights."""

import dataclasses
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from common.errors import UserError
from common.files import read_json, write_json
from common.progress import bar, log
from models.adapters.lora import add_lora, attach, known_products
from models.adapters.peft import read_peft_adapter
from models.decoder import Decoder
from models.families import read_spec, rows
from models.folder.load import load_decoder, random_decoder
from models.mesh import batch_sharding, check_batch, make_mesh
from models.text.packed_rows import count_rows, open_batches
from models.weights.files import base_digest
from train.checkpoint import Checkpoints
from train.config import LoraConfig, TrainConfig, TrainInputs
from train.log import TrainingLog, read_log
from train.step import Trainer, compile_step, make_trainer, schedule

VALIDATION_BATCHES = 50


def run(config: TrainConfig, inputs: TrainInputs, out: Path) -> dict[str, Any]:
    started = time.monotonic()
    mesh = make_mesh(inputs.hardware, read_spec(inputs.model), config.batch_size)
    check_batch(mesh, config.batch_size)
    dataset = read_json(Path(inputs.data) / "dataset.json")
    steps = total_steps(config, count_rows(str(Path(inputs.data) / "train")))
    log(f"train: {jax.device_count()} {jax.default_backend()} device(s), {dict(mesh.shape)}, {steps} steps")
    check_remat(config)
    decoder, about = make_decoder(config, inputs, mesh)
    decoder.run_on(mesh, config.attention)
    graph, trained, frozen = nnx.split(decoder, decoder.trained, ...)
    trained = jax.tree.map(lambda a: a.astype(np.float32), trained)
    log(f"train: attention {decoder.attention.describe(decoder.spec, dataset['max_length'], inputs.dtype)}")
    trainer = make_trainer(config, graph, inputs.dtype, steps)
    loop = Loop(config, trainer, mesh, Path(inputs.data), dataset, out)
    loop.run(trained, frozen, steps)
    digest = base_digest(inputs.model) if config.init == "base" else None
    write_json(out / "adapter.json", {"method": config.method, "base_digest": digest, "step": steps, **about})
    return {
        "steps": steps,
        "parameters": sum(math.prod(leaf.shape) for leaf in rows(decoder.spec, stacked=True)),
        "trained_parameters": sum(a.size for a in jax.tree.leaves(trained)),
        "seconds": time.monotonic() - started,
        **summary(out / "log.jsonl"),
    }


def summary(path: Path) -> dict[str, float]:
    """Final losses and the median rate of the whole run, across restarts."""
    lines = read_log(path)
    losses = [line["loss"] for line in lines if "loss" in line]
    validation = [line["validation_loss"] for line in lines if "validation_loss" in line]
    rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    out = {"loss": losses[-1], "tokens_per_second": float(np.median(rates))}
    return {**out, "validation_loss": validation[-1]} if validation else out


def check_remat(config: TrainConfig) -> None:
    if config.remat == "offload" and (backend := jax.default_backend()) == "cpu":
        what = f"{backend} devices have no memory besides the host's to offload from"
        raise UserError(what, where="train.remat", fix="write remat: dots, which keeps the same products")


def total_steps(config: TrainConfig, rows: int) -> int:
    return config.steps or max(1, math.ceil(config.epochs * rows / config.batch_size))


def make_decoder(config: TrainConfig, inputs: TrainInputs, mesh: Mesh) -> tuple[Decoder, dict[str, Any]]:
    """The stacked decoder with what is to be trained, LoRA or every weight; and what adapter.json says of LoRA."""
    if config.method == "lora":
        if config.init == "random":
            raise UserError("an adapter needs a trained base", where="train.init", fix="write `init: base`")
        decoder = load_decoder(inputs.model, inputs.dtype, True, mesh, config.weights)
        if config.adapter is not None:
            return decoder, _go_on(decoder, mesh, config)
        lora = config.lora
        return add_lora(decoder, mesh, lora.rank, lora.alpha, lora.targets, config.seed), lora.model_dump()
    if config.adapter is not None:
        what = "an adapter goes on as an adapter, not as full weights"
        raise UserError(what, where="train.adapter", fix="write method: lora, or merge it first: tapeout convert")
    if config.weights is not None:
        what = f"weights held as {config.weights} cannot be trained, only an adapter over them"
        raise UserError(what, where="train.weights", fix="write method: lora, or leave it out")
    if config.init == "random":
        return random_decoder(read_spec(inputs.model), "float32", config.seed, mesh), {}
    decoder = load_decoder(inputs.model, "float32", True, mesh)
    decoder.trained = nnx.Param
    return decoder, {}


def _go_on(decoder: Decoder, mesh: Mesh, config: TrainConfig) -> dict[str, Any]:
    """Attach the adapter that training goes on from. Raises UserError where train.lora asks for another shape of it."""
    assert config.adapter is not None
    found = attach(decoder, mesh, read_peft_adapter(Path(config.adapter), known_products(decoder)), "float32")
    own = {"rank": found.rank, "alpha": found.alpha, "targets": set(found.targets)}
    asked, default = config.lora.model_dump(), LoraConfig().model_dump()
    for key, value in own.items():
        wanted = set(asked[key]) if key == "targets" else asked[key]
        if asked[key] != default[key] and wanted != value:
            what = f"the adapter has {key} {sorted(value) if key == 'targets' else value}, the recipe asks for another"
            raise UserError(what, where=f"train.lora.{key}", fix="leave it out: the adapter's own is kept")
    log(f"train: going on from {config.adapter}: rank {found.rank}, alpha {found.alpha:g}, {', '.join(found.targets)}")
    return dataclasses.asdict(found)


class Loop:
    """Steps from the last checkpoint to the end: batch, step, log, validate, save."""

    def __init__(
        self, config: TrainConfig, trainer: Trainer, mesh: Mesh, data: Path, dataset: dict[str, Any], out: Path
    ):
        self.config, self.trainer, self.data, self.out = config, trainer, data, out
        self.max_length, self.buckets = dataset["max_length"], tuple(dataset.get("buckets", ()))
        self.sharding = batch_sharding(mesh)

    def run(self, trained: nnx.State, frozen: nnx.State, steps: int) -> None:
        config = self.config
        checkpoints = Checkpoints(self.out / "checkpoints", config.keep_checkpoints)
        opt_state = self.start_state(trained)
        batches = self.batches("train", config.seed)
        done = 0
        if (found := checkpoints.restore(trained, opt_state)) is not None:
            done, trained, opt_state, loader = found
            batches.set_state(loader)
            log(f"train: resuming at step {done}")
        train_step = compile_step(self.trainer, trained, opt_state)
        journal = TrainingLog(self.out / "log.jsonl", done)
        rate = schedule(config, steps)
        since, tokens = time.monotonic(), 0
        with bar("train", steps - done, "steps") as progress:
            for step in range(done + 1, steps + 1):
                batch = next(batches)
                tokens += int((batch["segments"] > 0).sum())
                trained, opt_state, metrics = train_step(trained, opt_state, frozen, self.on_devices(batch))
                last = step == steps
                note = ""
                if step % config.log_every == 0 or last:
                    line = {name: float(value) for name, value in metrics.items()}
                    self.check(line["loss"], step)
                    now = time.monotonic()
                    per_second = tokens / (now - since)
                    note = f"loss {line['loss']:.3f}, {per_second:.0f} tokens/s"
                    journal.write(
                        step=step, learning_rate=float(np.asarray(rate(step - 1))), tokens_per_second=per_second, **line
                    )
                    since, tokens = now, 0
                if last or (config.validate_every and step % config.validate_every == 0):
                    self.validate(trained, frozen, step, journal)
                    since = time.monotonic()
                if step % config.checkpoint_every == 0 or last:
                    checkpoints.save(step, trained, opt_state, batches.get_state())
                progress.advance(1, note)
        journal.close()
        checkpoints.close()

    def start_state(self, trained: nnx.State) -> Any:
        """Adam's moments placed as the weights they belong to, counters everywhere."""
        state = self.trainer.optimizer.init(trained)
        everywhere = NamedSharding(self.sharding.mesh, PartitionSpec())
        return jax.tree.map(lambda a: a if a.ndim else jax.device_put(a, everywhere), state)

    def batches(self, split: str, seed: int, epochs: int | None = None) -> Any:
        return open_batches(
            str(self.data / split),
            batch_size=self.config.batch_size,
            max_length=self.max_length,
            seed=seed,
            epochs=epochs,
            buckets=self.buckets,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def on_devices(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return {name: jax.make_array_from_process_local_data(self.sharding, a) for name, a in batch.items()}

    def validate(self, trained: nnx.State, frozen: nnx.State, step: int, journal: TrainingLog) -> None:
        """Mean loss per supervised token over the validation rows (each at most once)."""
        if count_rows(self.data / "validation") == 0:
            return
        parts = [
            self.trainer.evaluate(trained, frozen, self.on_devices(batch))
            for batch in islice(self.batches("validation", 0, epochs=1), VALIDATION_BATCHES)
        ]
        total, tokens = (float(sum(part[i] for part in parts)) for i in range(2))
        journal.write(step=step, validation_loss=total / max(tokens, 1.0))

    def check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {step}", where="train", fix="lower train.learning_rate, or set clip_norm"
            )
