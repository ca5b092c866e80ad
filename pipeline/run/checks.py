"""What a run needs of this machine, asked before any work: all that is missing, on one screen."""

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from models.config import HardwareConfig
from pipeline.recipe.schema import Recipe
from pipeline.run.fetching import is_remote_rows
from pipeline.run.graph import Step, scores_base
from pipeline.run.runner import is_done

_SIMULATOR = ("iverilog", "vvp")


def lacking(recipe: Recipe) -> list[str]:
    """What the recipe names and this machine does not have, one line each."""
    lines = [f"{key}: {path} does not exist" for key, path in _inputs(recipe) if not os.path.exists(path)]
    model = Path(recipe.model.path)
    if model.exists() and not (model / "config.json").is_file():
        lines.append(f"model.path: {model} has no config.json; name a folder in Hugging Face layout")
    return lines


def check_paths(recipe: Recipe) -> None:
    """Model, rows and benchmark exist: without them there is not even a fingerprint."""
    lines = lacking(recipe)
    if lines:
        raise UserError(
            "the recipe names what is not there\n" + "\n".join(f"  {line}" for line in lines),
            fix="paths are relative to the recipe file; fetch a model with: hf download NAME --local-dir DIR",
        )


def _inputs(recipe: Recipe) -> list[tuple[str, str]]:
    found = [("model.path", recipe.model.path)]
    sources = enumerate(recipe.data.sources)
    found += [(f"data.sources.{i}.path", source.path) for i, source in sources if not is_remote_rows(source.path)]
    if recipe.train.adapter is not None:
        found.append(("train.adapter", recipe.train.adapter))
    if recipe.data.benchmark is not None:
        found.append(("data.benchmark", recipe.data.benchmark))
    if recipe.eval is not None:
        if "://" not in recipe.eval.benchmark:
            found.append(("eval.benchmark", recipe.eval.benchmark))
        if recipe.eval.gate.baseline not in (None, "base"):
            found.append(("eval.gate.baseline", recipe.eval.gate.baseline))
    return found


def check_hardware(hardware: HardwareConfig) -> None:
    """The mesh multiplies to the device count, where the recipe gives both; else the train stage checks."""
    if isinstance(hardware.mesh, str) or hardware.devices is None:
        return
    product = math.prod(hardware.mesh.values())
    if product != hardware.devices:
        axes = " x ".join(f"{name} {size}" for name, size in hardware.mesh.items())
        raise UserError(
            f"the mesh has {product} places ({axes}) for {hardware.devices} devices",
            where="hardware.mesh",
            fix="choose axes whose product is the number of devices, or mesh: auto",
        )


def check_sense(recipe: Recipe) -> None:
    """Settings that contradict each other across sections: found here, not by the stage that runs last."""
    check_hardware(recipe.hardware)
    if recipe.train.init == "random" and recipe.train.method == "lora":
        raise UserError("an adapter needs a trained base", where="train.init", fix="write init: base, or method: full")
    data, scored = recipe.data, recipe.eval
    if data.contamination in ("drop", "error") and not (data.benchmark or (scored and "://" not in scored.benchmark)):
        what = f"contamination: {data.contamination} compares with a benchmark, and there is none on this machine"
        raise UserError(what, where="data.contamination", fix="name a folder as data.benchmark")
    gate = recipe.eval.gate if recipe.eval else None
    if gate and gate.max_drop is not None and gate.baseline == "base" and not scores_base(recipe):
        raise UserError(
            "the gate compares with the base model, which this recipe does not score",
            where="eval.gate.max_drop",
            fix="set eval.score_base, name another eval.gate.baseline, or gate on min alone",
        )


def check_simulator() -> None:
    missing = [tool for tool in _SIMULATOR if shutil.which(tool) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not found: eval simulates what the model writes",
            where="PATH",
            fix="apt-get install iverilog, or: brew install icarus-verilog",
        )


def check_writable(folder: Path) -> None:
    """`folder` can be made and written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        raise UserError(
            f"cannot write to the runs folder: {error.strerror}",
            where=str(error.filename or folder),
            fix="choose another place with --runs DIR",
        ) from error


def check_machine(steps: Sequence[Step]) -> None:
    """Tools that the steps still to be done need."""
    if any(step.stage == "eval" and not is_done(step) for step in steps):
        check_simulator()
