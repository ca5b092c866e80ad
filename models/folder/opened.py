"""A model folder, opened once: each of its parts is read when it is first asked for, and kept."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.digests.model import base_digest
from common.safetensors import Weights, read_weights
from common.schema import Known
from models.families import read_config, spec_of
from models.quant.layout import Mode, stored_mode
from models.spec import DecoderSpec
from models.weights.files import WeightFiles


@dataclass(frozen=True)
class ModelFolder:
    """`known` are digests of its files that another process computed. Every part raises UserError where it is not what
    it should be."""

    path: Path
    known: Known = field(default_factory=dict)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return read_config(str(self.path))

    @cached_property
    def headers(self) -> Weights:
        """Of its safetensors; without shards where it has a configuration only."""
        return read_weights(self.path)

    @cached_property
    def weights(self) -> WeightFiles:
        """Its tensors; there must be some."""
        return WeightFiles(str(self.path), self.headers)

    @cached_property
    def spec(self) -> DecoderSpec:
        return spec_of(self.config, str(self.path), lambda: self.headers.where)

    @cached_property
    def stored(self) -> Mode | None:
        """How its weights are quantized; None where they are in full."""
        return stored_mode(self.config, str(self.path))

    @cached_property
    def digest(self) -> str:
        """sha256 over config.json and the weights: what an adapter is trained on."""
        return base_digest(self.path, self.known)


def opened(folder: str | ModelFolder) -> ModelFolder:
    """The folder at a path, or the one that is open already."""
    return ModelFolder(Path(folder)) if isinstance(folder, str) else folder
