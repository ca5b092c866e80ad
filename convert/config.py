"""The recipe's `convert` section, and what the stage reads."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from common.schema import Known, Place, Section

VERSION = 3


class ConvertConfig(Section):
    """`convert`: adapter and base to a model that others load."""

    peft: bool = Field(default=True, description="Also write the adapter in PEFT's layout")
    step: int | None = Field(default=None, ge=1, description="Checkpoint to convert; None: the last")
    checkpoints: str | list[int] | None = Field(
        default=None,
        description='Checkpoints to combine instead: "last 3", or a list of steps; their updates are added',
    )
    weights: list[float] | None = Field(
        default=None, description="A factor for each of `checkpoints`, oldest first; None: their average"
    )
    max_shard_size: str | None = Field(
        default=None, pattern=r"^\d+(\.\d+)?\s*[KMG]i?B$", description='Such as "5GB"; None: the shards of the base'
    )
    verify: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Compare base + adapter with the merged model on the data stage's prompts; auto: small models",
    )
    max_kl: float | None = Field(
        default=0.05, gt=0, description="Largest mean KL divergence (nats) between the two that passes; None: any"
    )
    quantize: Literal["int8", "int4", "nf4"] | None = Field(
        default=None, description="Also write the merged model with weights of this kind, for tapeout serve"
    )
    partial: bool = Field(default=False, description="Accept an adapter that leaves out layers of what it adapts")

    @field_validator("checkpoints")
    @classmethod
    def _last_n(cls, value: str | list[int] | None) -> str | list[int] | None:
        if isinstance(value, str) and not re.fullmatch(r"last [1-9]\d*", value):
            raise ValueError('write "last N" or a list of steps')
        if isinstance(value, list) and (not value or value != sorted(set(value))):
            raise ValueError("list each step once, oldest first")
        return value

    @model_validator(mode="after")
    def _one_choice(self) -> "ConvertConfig":
        if self.step is not None and self.checkpoints is not None:
            raise ValueError("step and checkpoints exclude each other")
        if self.weights is not None and self.checkpoints is None:
            raise ValueError("weights are those of checkpoints: name these too")
        if self.weights is not None and isinstance(self.checkpoints, list | str):
            count = len(self.checkpoints) if isinstance(self.checkpoints, list) else int(self.checkpoints.split()[1])
            if len(self.weights) != count:
                raise ValueError(f"{len(self.weights)} weights for {count} checkpoints")
        return self


class ConvertInputs(Section):
    base: Place = Field(description="Folder of the base model")
    adapter: Place = Field(description="Artifact of the train stage, or a PEFT adapter folder")
    probes: Place | None = Field(
        default=None, description="Artifact of the data stage: its prompts are run; None: none are"
    )
    known: Known = Field(default={}, description="Digests of the base's files that the conductor computed")
