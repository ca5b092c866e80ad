"""One stage from flags alone, on files that other tools made: no recipe, no runs folder.

The flags become the stage's configuration and go through the same checks as a recipe; the result is a folder with a
record, written under a partial name. A train or eval that was cut off goes on when the same command is given again.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.digests.known import Digests
from common.digests.model import model_digest
from common.digests.results import result_digest
from common.errors import UserError
from common.files import keep_apart, locked, real
from common.progress import log
from common.schema import absolute, is_remote
from data.config import DataConfig
from models.config import HardwareConfig
from pipeline.recipe.schema import validate
from pipeline.recipe.source import Source
from pipeline.run import checks
from pipeline.run.attempts import JOB
from pipeline.run.fetching import is_remote_rows, local_folder, local_rows
from pipeline.run.figures import at_a_glance
from pipeline.run.graph import CONFIGS, INPUTS, KNOWN, Step, identity_of, reads_weights
from pipeline.run.inputs import check_apart, check_benchmark
from pipeline.run.records import RECORD, check_if_ours, check_result, identity, read_record
from pipeline.run.runner import LOCK_PATIENCE_S, Runner, child_env
from pipeline.run.scores import with_wanted_k
from pipeline.run.server import follow, start_server

_HARDWARE = "hardware"
PLACES = ("model", "base", "adapter", "data", "probes")
"""Inputs that are files or folders."""
MODELS = ("--model", "--base")
"""Flags that take a Hub id or a URL, too."""


def stage_step(
    stage: str, given: dict[str, Any], inputs: dict[str, Any], assignments: Sequence[str], out: Path | None
) -> tuple[Step, HardwareConfig]:
    """The step that the flags describe; `out` is its folder, None where it leaves no result.

    `--set hardware.mesh=...` reaches the hardware section, others the stage's.
    """
    source = Source(f"the options of tapeout {stage}", given)
    machine = Source(source.name, {})
    for assignment in assignments:
        if assignment.startswith(f"{_HARDWARE}."):
            machine.set(assignment.removeprefix(f"{_HARDWARE}."))
        else:
            source.set(assignment.removeprefix(f"{stage}."))
    config = validate(CONFIGS[stage], source, Path.cwd())
    check_benchmark(config)
    config = local_rows(config) if isinstance(config, DataConfig) else config
    hardware = validate(HardwareConfig, machine, Path.cwd())
    if _HARDWARE in INPUTS[stage].model_fields:
        inputs = inputs | {_HARDWARE: hardware}
    if stage != "eval":  # whose model is a name
        inputs = {name: _found(name, value) for name, value in inputs.items()}
    final = real((out or Path(stage)).expanduser())
    if out is not None:
        check_apart(config, final)
        keep_apart(final, {} if stage == "eval" else {name: inputs[name] for name in PLACES if name in inputs})
    digests = Digests()
    seen: dict[str, Any] = {}
    if stage != "serve":  # nothing of it is kept: its model is not read for a fingerprint
        weights = reads_weights(stage, config)
        seen = {
            name: _content(value, digests, None if f"--{name}" not in MODELS or stage == "eval" else weights)
            for name, value in inputs.items()
        }
    if KNOWN in INPUTS[stage].model_fields:
        inputs = inputs | {KNOWN: digests.known}
    return Step(stage, stage, config, inputs, identity_of(stage, config, seen, digests), final), hardware


def _found(name: str, value: Any) -> Any:
    """An input, absolute where it is a file or folder; a model that lies elsewhere is fetched."""
    if name not in PLACES:
        return value
    return local_folder(absolute(value)) if f"--{name}" in MODELS else absolute(value)


def _content(value: Any, digests: Digests, weights: bool | None) -> Any:
    """`weights`: whether those of a model are read; None where `value` is no model."""
    if isinstance(value, str) and Path(value).exists():
        if check_if_ours(Path(value), digests):
            return {"digest": result_digest(Path(value), digests)}
        if weights is None or not Path(value).is_dir():
            return {"digest": digests.of(value)}
        return {"digest": model_digest(Path(value), digests, weights)}
    return identity(value, digests)


def check_paths(flags: dict[str, str]) -> None:
    """What each flag names exists. Raises UserError for the first that does not."""
    for flag, path in flags.items():
        elsewhere = is_remote(path) if flag in MODELS else flag == "--input" and is_remote_rows(path)
        if not Path(path).expanduser().exists() and not elsewhere:
            raise UserError("no such file or folder", where=f"{flag} {path}", fix="check the path")


def run_alone(step: Step, hardware: HardwareConfig, debug: bool) -> int:
    """Run the step into its folder, which must be new, empty or the result of this very step."""
    checks.check_hardware(hardware)
    checks.check_machine([step])
    final, env = step.final, child_env(hardware, None, debug)
    if _is_kept(step):
        check_result(final, Digests())
        with_wanted_k(step, env)
        log(f"{step.name}: kept ({final})")
        return 0
    checks.check_writable(final.parent)
    with locked(final.with_name(f".{final.name}.lock"), LOCK_PATIENCE_S):
        _is_kept(step)  # or another has put something there meanwhile
        (result,) = Runner(final.parent, env, Digests()).run([step])
    log(f"{step.name}: done ({final}): {at_a_glance(result)}")
    return 0


def _is_kept(step: Step) -> bool:
    """Whether the result of this very step is there; UserError where the folder holds anything else."""
    final = step.final
    if final.is_symlink():
        raise UserError("symbolic links in a circle", where=str(final), fix="name a new folder with --out")
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return False
    ours = (final / RECORD).is_file() or (final / JOB).is_file()
    if ours and read_record(final)["fingerprint"] == step.fingerprint:
        return True
    raise UserError("the output folder exists and is not empty", where=str(final), fix="name a new folder with --out")


def serve_alone(step: Step, hardware: HardwareConfig, debug: bool) -> int:
    """Serve until stopped; nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="tapeout-") as folder:
        return follow(lambda: start_server(step, Path(folder), child_env(hardware, None, debug)))
