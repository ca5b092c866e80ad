"""A stage as a process: read a job file, run, leave metrics.json beside the artifact's files.

The conductor (or `tapeout STAGE`) starts `python -m STAGE JOB.json` with a job of {config, inputs, out}. The process
turns SIGTERM and Ctrl-C into a clean exit, and user errors into one screen and exit code 2.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.answer import read_job, reported
from common.errors import UserError
from common.files import write_json
from common.process import become
from common.schema import Section

METRICS = "metrics.json"
_KEYS = {"config", "inputs", "out", "fingerprint", "identity"}
"""Of a job; the last two are the conductor's own notes on whose it is."""

Run = Callable[[Any, Any, Path], dict[str, Any]]


def _on_term(_signal: int, _frame: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def read_parts(job: Any, config_type: type[Section], inputs_type: type[Section]) -> tuple[Any, Any, Path]:
    """Configuration, inputs and output folder of a job, relative paths from the working folder made absolute.

    Raises UserError for a part that is missing and for every key that is unknown or has a value that cannot be.
    """
    if not isinstance(job, dict) or not isinstance(job.get("out"), str) or not job["out"]:
        raise UserError("a job is an object with config, inputs and out", where=sys.argv[-1], fix="write all three")
    parts: list[Any] = []
    wrong = [f"{key}: unknown key" for key in job if key not in _KEYS]
    for key, section in (("config", config_type), ("inputs", inputs_type)):
        try:
            parts.append(section.model_validate(job.get(key, {}), context={"base": os.getcwd()}))
        except ValidationError as error:
            details = error.errors(include_url=False)
            wrong += [f"{'.'.join(map(str, (key, *detail['loc'])))}: {detail['msg']}" for detail in details]
    if wrong:
        said = "\n".join(f"  {line}" for line in wrong)
        raise UserError(f"the job cannot be read\n{said}", where=sys.argv[-1], fix="correct the job")
    return parts[0], parts[1], Path(job["out"]).expanduser().absolute()


def main(stage: str, run: Run, config_type: type[Section], inputs_type: type[Section]) -> int:
    """The body of a stage's `__main__`: run the job named on the command line; returns the exit code.

    Anything but a job file is handed to `tapeout STAGE`, in place of this process.
    """
    if not sys.argv[1:2] or not sys.argv[1].endswith(".json"):
        become("tapeout", stage, *sys.argv[1:])
    signal.signal(signal.SIGTERM, _on_term)
    gc.freeze()  # a million objects of the libraries stay for good: the collector need not walk them again and again

    def work() -> int:
        job = read_job()
        config, inputs, out = read_parts(job, config_type, inputs_type)
        metrics = run(config, inputs, out)
        write_json(out / METRICS, metrics)
        return 0

    try:
        return reported(work)
    finally:
        gc.unfreeze()  # libraries that look for leaks when the interpreter ends would find them all
