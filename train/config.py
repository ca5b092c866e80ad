"""The recipe's `train` section, and what the stage reads."""

from typing import Literal

from pydantic import Field, model_validator

from common.schema import InputPath, Known, Place, Section
from models.config import AttentionName, HardwareConfig

VERSION = 5


class LoraConfig(Section):
    rank: int = Field(default=16, ge=1, description="Rank of the adapter matrices")
    alpha: float = Field(default=32.0, gt=0, description="The update is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        default=("q", "kv", "o", "gate_up", "down"),
        min_length=1,
        description="Products to adapt; router is a mixture of experts', per_layer_* are Gemma 4 E2B's",
    )


class TrainConfig(Section):
    """`train`: fine-tuning."""

    method: Literal["lora", "full"] = "lora"
    init: Literal["base", "random"] = Field(
        default="base", description="`random`: train from random weights (method full)"
    )
    lora: LoraConfig = LoraConfig()
    adapter: InputPath | None = Field(
        default=None,
        description="Go on from this PEFT adapter (convert's, TRL's, Unsloth's ...) with its rank, alpha and targets",
    )
    weights: Literal["int8", "int4", "nf4"] | None = Field(
        default=None, description="QLoRA: hold the base's weights so, under the adapter; None: in full (method lora)"
    )
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps; None: `epochs` times the data")
    epochs: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=8, ge=1, description="Packed rows in one optimizer step")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Micro batches in which a step takes its rows, one after another: less memory, the same result",
    )
    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = Field(
        default="cosine",
        description="After the warm-up: down to final_learning_rate by a cosine or a line; constant; or wsd: constant, "
        "then a line over wsd_decay of the steps",
    )
    wsd_decay: float = Field(default=0.2, gt=0, le=1, description="Share of the run over which wsd falls, at its end")
    warmup_steps: int = Field(default=10, ge=0)
    final_learning_rate: float = Field(
        default=0.0, ge=0, description="As a share of learning_rate, at the end of a schedule that falls"
    )
    b_rate: float = Field(
        default=1.0, gt=0, description="LoRA+: the learning rate of every B, as a multiple of learning_rate"
    )
    b1: float = Field(default=0.9, ge=0, lt=1, description="AdamW: decay of the mean of gradients")
    b2: float = Field(default=0.99, ge=0, lt=1, description="AdamW: decay of the mean of their squares")
    eps: float = Field(default=1e-8, gt=0, description="AdamW: added to the root of that mean")
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    attention: AttentionName = Field(
        default="auto",
        description="exact, blockwise (long rows), splash (TPU), cudnn (GPU); auto: by backend and shape",
    )
    remat: Literal["none", "full", "outputs", "products"] = Field(
        default="full",
        description="What the backward pass computes again: nothing, all, all but each layer's outputs (attention, o "
        "and down), or all but outputs and the wide products (gate and up)",
    )
    scan_layers: bool = Field(
        default=True, description="False: unroll the layers; longer to compile, faster for small models"
    )
    checkpoint_every: int = Field(default=100, ge=1)
    keep_checkpoints: int = Field(default=3, ge=1)
    log_every: int = Field(default=10, ge=1)
    validate_every: int | None = Field(
        default=None, ge=1, description="Steps between validation losses; None: at the end"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _only_an_adapter_has_a_b(self) -> "TrainConfig":
        if self.b_rate != 1 and self.method == "full":
            raise ValueError(f"b_rate = {self.b_rate:g}: only an adapter has a B (method lora)")
        return self

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> "TrainConfig":
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate = {self.accumulate} does not divide a batch_size of {self.batch_size}")
        return self


class TrainInputs(Section):
    model: Place = Field(description="Folder of the base model")
    data: Place = Field(description="Artifact of the data stage")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of weights and activations")
    hardware: HardwareConfig = HardwareConfig()
    known: Known = Field(default={}, description="Digests of the model's files that the conductor computed")
