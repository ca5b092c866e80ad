"""`python -m models.folder.sizes JOB.json`: what a model comes to on so many devices, by arithmetic alone.

JOB = {"model", "train": {"devices", "hardware", "batch", "accumulate", "dtype", "weights"}, "serve": {"devices", "tp",
"replicate", "dtype", "weights"}}, either left out. The answer: parameters, bytes of the files, and for each the mesh
with bytes of weights on a device; or the error that names the constraint.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import AbstractMesh

from common.answer import answer
from common.errors import UserError
from models.config import HardwareConfig
from models.families import rows
from models.folder.opened import ModelFolder
from models.leaf import Leaf
from models.mesh import AXES, check_batch, mesh_sizes, serving_tp, weight_sharding
from models.quant.layout import Mode, mode_of, mode_to_load, shapes
from models.spec import DecoderSpec

BYTES = {"float32": 4, "bfloat16": 2}


def _mesh(sizes: dict[str, int]) -> AbstractMesh:
    return AbstractMesh(tuple(sizes.get(axis, 1) for axis in AXES), AXES)


def weight_bytes(spec: DecoderSpec, sizes: dict[str, int], dtype: str, weights: Mode | None) -> int:
    """Of the weights on one device of a mesh, held as loading holds them."""
    mesh = _mesh(sizes)

    def held(leaf: Leaf, shape: tuple[int, ...], width: int) -> int:
        return width * math.prod(weight_sharding(mesh, leaf, shape).shard_shape(shape))

    total = 0
    for leaf in rows(spec, True):
        mode = None if weights is None else mode_of(leaf, weights)
        if mode is None:
            total += held(leaf, leaf.shape, BYTES[dtype])
        else:
            codes, scale = shapes(leaf, mode)
            total += held(leaf, codes, 1) + held(leaf, scale, 4)
    return total


def _train(spec: DecoderSpec, asked: dict[str, Any]) -> dict[str, Any]:
    hardware = HardwareConfig.model_validate(asked["hardware"])
    sizes, why = mesh_sizes(hardware, asked["devices"], spec, asked["batch"] // asked["accumulate"])
    check_batch(_mesh(sizes), asked["batch"], asked["accumulate"])
    return {"mesh": sizes, "why": why, "weights": weight_bytes(spec, sizes, asked["dtype"], asked["weights"])}


def _serve(spec: DecoderSpec, asked: dict[str, Any]) -> dict[str, Any]:
    tp, idle = serving_tp(asked["tp"], asked["replicate"], spec, asked["devices"])
    why = f"{idle} devices stay idle" if idle else ""
    return {"mesh": {"tp": tp}, "why": why, "weights": weight_bytes(spec, {"tp": tp}, asked["dtype"], asked["weights"])}


def sizes_of(job: dict[str, Any]) -> dict[str, Any]:
    """The answer to a job. Raises UserError for a model that cannot be read."""
    model = ModelFolder(Path(job["model"]))
    table = rows(model.spec, True)
    parameters = sum(math.prod(leaf.shape) for leaf in table)
    found: dict[str, Any] = {"parameters": parameters, "files": _files(model, parameters)}
    stages: dict[str, Callable[[DecoderSpec, dict[str, Any]], dict[str, Any]]] = {"train": _train, "serve": _serve}
    for stage, fit in stages.items():
        if stage in job:
            try:
                weights, _ = mode_to_load(model.stored, job[stage]["weights"])
                found[stage] = fit(model.spec, job[stage] | {"weights": weights})
            except UserError as error:
                found[stage] = {"refused": {"what": error.what, "where": error.where, "fix": error.fix}}
    return found


def _files(model: ModelFolder, parameters: int) -> int:
    """Bytes of the safetensors; of two a parameter where they are not here yet."""
    stored = model.headers.where
    if not stored:
        return 2 * parameters
    return sum(shard.path.stat().st_size for shard in model.headers.shards)


if __name__ == "__main__":
    sys.exit(answer(sizes_of))
