"""`python -m serve.planned JOB.json`: what a recipe's server needs on a slice, by the TPU compiler, without one.

JOB = {"config", "model", "slice"}; the answer is the figures of its decode and of its longest prefill on each chip.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from common.answer import answer
from common.machine.chips import slice_of
from common.machine.estimate import estimate
from models.folder.abstract import abstract_decoder
from models.folder.opened import ModelFolder
from models.mesh import laid_out, serving_tp, slice_devices
from models.quant.layout import mode_to_load
from serve.config import ServeConfig
from serve.engine.definitions import Definitions, steps_of


def planned(job: dict[str, Any]) -> dict[str, Any]:
    """Bytes and seconds of a dispatch of decode, every slot full, and of one prompt of `max_length`. Raises UserError
    for a tp that the model does not divide over."""
    config = ServeConfig.model_validate(job["config"])
    model = ModelFolder(Path(job["model"]))
    slice_, spec = slice_of(job["slice"]), model.spec
    weights, _ = mode_to_load(model.stored, config.weights)
    devices = slice_devices(slice_)
    tp, _ = serving_tp(config.tp, config.replicate, spec, len(devices))
    mesh = laid_out([1, 1, tp], devices[:tp])
    decoder = abstract_decoder(spec, config.dtype, False, mesh, weights, config.attention)
    steps = steps_of(config.decode_steps, decoder.attention.platform)
    programs = Definitions(decoder, config.slots, config.max_length, steps, frozenset({1}))
    start = time.monotonic()
    decode = estimate(programs.lower_decode().compile(), slice_.chip)
    prefill = estimate(programs.lower_prefill(config.max_length).compile(), slice_.chip)
    return {
        "decode": dataclasses.asdict(decode),
        "prefill": dataclasses.asdict(prefill),
        "slots": config.slots,
        "steps": steps,
        "tokens": config.slots * steps,
        "prompt": config.max_length,
        "compiled": time.monotonic() - start,
    }


if __name__ == "__main__":
    sys.exit(answer(planned))
