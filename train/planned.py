"""`python -m train.planned JOB.json`: what a recipe's training step needs on a slice, by the TPU compiler, without one.

JOB = {"config", "hardware", "dtype", "length", "model", "slice"}; the answer is the figures of one step on each chip.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from common.answer import answer
from common.machine.chips import slice_of
from common.machine.estimate import estimate
from models.config import HardwareConfig
from models.folder.opened import ModelFolder
from models.mesh import AXES, check_batch, laid_out, mesh_sizes, slice_devices
from models.quant.layout import mode_to_load
from train.abstract import abstract_step, head_chunks
from train.config import TrainConfig


def planned(job: dict[str, Any]) -> dict[str, Any]:
    """Bytes and seconds of a step over full rows, all supervised. Raises UserError for a mesh that the model or the
    batch does not divide over."""
    config, hardware = TrainConfig.model_validate(job["config"]), HardwareConfig.model_validate(job["hardware"])
    model = ModelFolder(Path(job["model"]))
    slice_, spec = slice_of(job["slice"]), model.spec
    weights, _ = mode_to_load(model.stored, config.weights)
    devices, batch = slice_devices(slice_), (config.batch_size, job["length"])
    sizes, _ = mesh_sizes(hardware, len(devices), spec, config.batch_size // config.accumulate)
    mesh = laid_out([sizes.get(axis, 1) for axis in AXES], devices)
    check_batch(mesh, config.batch_size, config.accumulate)
    config = config.model_copy(update={"weights": weights})
    lowered = abstract_step(spec, config, mesh, batch, job["dtype"]).lower()
    start = time.monotonic()
    found = estimate(
        lowered.compile(), slice_.chip, head_chunks(mesh, spec.vocab, (batch[0] // config.accumulate, batch[1]))
    )
    return {"step": dataclasses.asdict(found), "tokens": batch[0] * batch[1], "compiled": time.monotonic() - start}


if __name__ == "__main__":
    sys.exit(answer(planned))
