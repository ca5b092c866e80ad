"""The train stage: base model and packed shards to Orbax checkpoints of the trained weights."""

import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from common.digests.saved import sealed
from common.files import write_json
from models.families import rows
from train.config import TrainConfig, TrainInputs
from train.loop import Loop
from train.setup import prepare
from train.watch.log import read_log


def run(config: TrainConfig, inputs: TrainInputs, out: Path) -> dict[str, Any]:
    """Write checkpoints/, log.jsonl and adapter.json into `out`, from where a run that was cut off stopped; returns the
    figures."""
    started = time.monotonic()
    setup = prepare(config, inputs)
    Loop(setup, out).run()
    about = {"method": config.method, "base_digest": setup.base_digest, "step": setup.steps, **setup.about}
    write_json(out / "adapter.json", sealed(about))
    return {
        "steps": setup.steps,
        "parameters": sum(math.prod(leaf.shape) for leaf in rows(setup.spec, stacked=True)),
        "trained_parameters": sum(a.size for a in jax.tree.leaves(setup.trained)),
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
