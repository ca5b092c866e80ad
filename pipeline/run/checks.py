"""What a run needs of this machine and of its own settings, asked before any work."""

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common.benchmark.folder import is_url
from common.errors import UserError
from models.config import HardwareConfig
from pipeline.recipe.schema import Recipe
from pipeline.run.graph import Step, scores_base
from pipeline.run.runner import is_done

_SIMULATOR = ("iverilog", "vvp")


def check_hardware(hardware: HardwareConfig) -> None:
    """The mesh multiplies to the device count, where the recipe gives both; else the train stage checks. Raises
    UserError where it does not."""
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
    """Settings that contradict each other across sections: found here, not by the stage that runs last. Raises
    UserError for the first."""
    check_hardware(recipe.hardware)
    if recipe.train.init == "random" and recipe.train.method == "lora":
        raise UserError("an adapter needs a trained base", where="train.init", fix="write init: base, or method: full")
    data, scored = recipe.data, recipe.eval
    if data.contamination in ("drop", "error") and not (data.benchmark or (scored and not is_url(scored.benchmark))):
        what = f"contamination: {data.contamination} compares with a benchmark, and there is none on this machine"
        raise UserError(what, where="data.contamination", fix="name a folder as data.benchmark")
    if scored and scored.completions is None and scored.max_tokens >= recipe.serve.max_length:
        raise UserError(
            f"answers of up to {scored.max_tokens} tokens leave no room for a prompt in {recipe.serve.max_length}",
            where="eval.max_tokens",
            fix="lower it, or raise serve.max_length, which holds prompt and answer",
        )
    gate = recipe.eval.gate if recipe.eval else None
    if gate and gate.max_drop is not None and gate.baseline == "base" and not scores_base(recipe):
        raise UserError(
            "the gate compares with the base model, which this recipe does not score",
            where="eval.gate.max_drop",
            fix="set eval.score_base, name another eval.gate.baseline, or gate on min alone",
        )


def doubts(recipe: Recipe) -> list[tuple[str, str]]:
    """(dotted key, sentence) of settings that a run would take and that a person hardly means."""
    train, found = recipe.train, []
    if train.steps is not None and train.warmup_steps >= train.steps:
        what = f"{train.warmup_steps} steps of warm-up in a run of {train.steps}: learning_rate is never reached"
        found.append(("train.warmup_steps", what))
    if recipe.data.max_length > recipe.serve.max_length:
        what = f"rows of up to {recipe.data.max_length} tokens are trained, the server takes {recipe.serve.max_length}"
        found.append(("serve.max_length", what))
    return found


def check_simulator() -> None:
    """Raises UserError, with how to install them, where iverilog and vvp are not on PATH."""
    missing = [tool for tool in _SIMULATOR if shutil.which(tool) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not found: eval simulates what the model writes",
            where="PATH",
            fix="apt-get install iverilog, or: brew install icarus-verilog",
        )


def check_writable(folder: Path) -> None:
    """`folder` can be made and written to. Raises UserError where not."""
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
