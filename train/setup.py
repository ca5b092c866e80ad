"""Configuration and inputs to what the loop runs on: the base with its adapter, the mesh, the batches."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from common.errors import UserError
from common.files import read_json
from common.progress import log
from models.adapters.lora import add_lora, attach, known_products
from models.adapters.peft import read_peft_adapter
from models.decoder import Decoder
from models.folder.load import load_decoder, random_decoder
from models.folder.opened import ModelFolder
from models.mesh import batch_sharding, check_batch, make_mesh
from models.spec import DecoderSpec
from models.text.packed_rows import count_rows, open_batches
from train.config import LoraConfig, TrainConfig, TrainInputs
from train.contract import check_data, check_steps
from train.loss import Batch
from train.step import Trainer, make_trainer


@dataclass(frozen=True)
class Batches:
    """Packed rows of a data artifact, as batches placed on a mesh."""

    data: Path
    batch_size: int
    max_length: int
    buckets: tuple[int, ...]
    mesh: Mesh

    def count(self, split: str) -> int:
        return count_rows(self.data / split)

    def open(self, split: str, seed: int, epochs: int | None = None) -> Any:
        """This process's share of the batches, on the host, for ever or for `epochs`."""
        return open_batches(
            str(self.data / split),
            batch_size=self.batch_size,
            max_length=self.max_length,
            seed=seed,
            epochs=epochs,
            buckets=self.buckets,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def on_devices(self, batch: dict[str, np.ndarray]) -> Batch:
        """Arrays [b t] of all processes together."""
        sharding = batch_sharding(self.mesh)
        return {name: jax.make_array_from_process_local_data(sharding, a) for name, a in batch.items()}


@dataclass(frozen=True)
class Setup:
    config: TrainConfig
    spec: DecoderSpec
    mesh: Mesh
    batches: Batches
    steps: int
    trainer: Trainer
    trained: nnx.State
    """Float32."""
    frozen: nnx.State
    about: dict[str, Any]
    """What adapter.json says of LoRA, and of the day that the data shows."""
    base_digest: str | None
    """None where training starts from random weights."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a run must not change while it goes on: all that its result depends on, but for the data's content."""
        named = self.config.model_dump(mode="json", exclude=set(FREE))
        return {**named, "steps": self.steps, "base_digest": self.base_digest}


FREE = ("epochs", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints")
FREE += ("accumulate", "attention", "remat", "scan_layers")
"""Options whose change leaves a run's result what it is, rounding aside; `epochs` is in `steps`."""


def prepare(config: TrainConfig, inputs: TrainInputs) -> Setup:
    """Everything that is loaded and checked before the first step. Raises UserError for what a run would trip over."""
    model, data = ModelFolder(Path(inputs.model), inputs.known), Path(inputs.data)
    spec = model.spec
    check_config(config)
    mesh = make_mesh(inputs.hardware, spec, config.batch_size // config.accumulate)
    check_batch(mesh, config.batch_size, config.accumulate)
    dataset = read_json(data / "dataset.json")
    batches = Batches(data, config.batch_size, dataset["max_length"], tuple(dataset.get("buckets", ())), mesh)
    steps = total_steps(config, batches.count("train"))
    log(f"train: {jax.device_count()} {jax.default_backend()} device(s), {dict(mesh.shape)}, {steps} steps")
    check_steps(config, steps)
    check_data(inputs.model, data, dataset, spec)
    digest = model.digest if config.init == "base" else None  # of what is loaded, not of what lies there at the end
    decoder, about = make_decoder(config, model, inputs.dtype, mesh)
    log(f"train: attention {decoder.attention.describe(spec, batches.max_length, inputs.dtype)}")
    graph, trained, frozen = split(decoder)
    trainer = make_trainer(config, spec, graph, inputs.dtype, steps)
    dated = {"date": dataset["date"]} if "date" in dataset else {}
    return Setup(config, spec, mesh, batches, steps, trainer, trained, frozen, {**about, **dated}, digest)


def split(decoder: Decoder) -> tuple[nnx.GraphDef[Decoder], nnx.State, nnx.State]:
    """(graph, trained in float32, frozen)."""
    graph, trained, frozen = nnx.split(decoder, decoder.trained, ...)
    return graph, jax.tree.map(lambda a: a.astype(np.float32), trained), frozen


def check_config(config: TrainConfig) -> None:
    """Settings that exclude each other, or that this machine cannot follow. Raises UserError for the first."""
    if config.method == "lora" and config.init == "random":
        raise UserError("an adapter needs a trained base", where="train.init", fix="write `init: base`")
    if config.method == "full" and config.adapter is not None:
        what = "an adapter goes on as an adapter, not as full weights"
        raise UserError(what, where="train.adapter", fix="write method: lora, or merge it first: tapeout convert")
    if config.method == "full" and config.weights is not None:
        what = f"weights held as {config.weights} cannot be trained, only an adapter over them"
        raise UserError(what, where="train.weights", fix="write method: lora, or leave it out")


def total_steps(config: TrainConfig, rows: int) -> int:
    return config.steps or max(1, math.ceil(config.epochs * rows / config.batch_size))


def make_decoder(config: TrainConfig, model: ModelFolder, dtype: str, mesh: Mesh) -> tuple[Decoder, dict[str, Any]]:
    """The stacked decoder with what is to be trained, LoRA or every weight; and what adapter.json says of LoRA."""
    if config.init == "random":
        return random_decoder(model.spec, "float32", config.seed, mesh, config.attention), {}
    if config.method == "full":
        decoder = load_decoder(model, "float32", True, mesh, attention=config.attention)
        decoder.trained = nnx.Param
        return decoder, {}
    decoder = load_decoder(model, dtype, True, mesh, config.weights, config.attention)
    if config.adapter is not None:
        return decoder, _go_on(decoder, mesh, config)
    lora = config.lora
    return add_lora(decoder, mesh, lora.rank, lora.alpha, lora.targets, config.seed), lora.model_dump()


def _go_on(decoder: Decoder, mesh: Mesh, config: TrainConfig) -> dict[str, Any]:
    """Attach the adapter that training goes on from. Raises UserError where train.lora asks for another shape of it."""
    assert config.adapter is not None
    found = attach(decoder, mesh, read_peft_adapter(Path(config.adapter), known_products(decoder)), "float32")
    own = {"rank": found.rank, "alpha": found.alpha, "targets": set(found.targets)}
    asked, default = config.lora.model_dump(), LoraConfig().model_dump()
    unused: list[str] = []
    for key, value in own.items():
        wanted = set(asked[key]) if key == "targets" else asked[key]
        if wanted == value:
            continue
        if asked[key] != default[key]:
            what = f"the adapter has {key} {sorted(value) if key == 'targets' else value}, the recipe asks for another"
            raise UserError(what, where=f"train.lora.{key}", fix="leave it out: the adapter's own is kept")
        unused.append(f"{key} {', '.join(asked[key]) if key == 'targets' else asked[key]}")
    log(f"train: going on from {config.adapter}: rank {found.rank}, alpha {found.alpha:g}, {', '.join(found.targets)}")
    if found.untrained:
        log(f"train: {len(found.untrained)} tensors of the adapter are not of this model, and were never trained")
    if unused:
        log(f"train: the adapter's own are kept, and train.lora's are not used: {'; '.join(unused)}")
    return dataclasses.asdict(found)
