"""A stage as a process: read a job file, run, leave metrics.json beside the artifact's files.

The conductor (or `tapeout STAGE`) starts `python -m STAGE JOB.json` with a job of {config, inputs, out}. The process
turns SIGTERM and Ctrl-C into a clean exit, and user errors into one screen and exit code 2.
"""

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import EXIT_USER_ERROR, UserError, from_os_error
from common.files import read_json, write_json
from common.progress import log
from common.schema import Section

METRICS = "metrics.json"
EXIT_CRASH = 1

Run = Callable[[Any, Any, Path], dict[str, Any]]


def _on_term(_signal: int, _frame: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def report(error: BaseException, debug: bool) -> int:
    """Print an error for a person and return the exit code it deserves."""
    if debug:
        log("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        error = from_os_error(error)
    if isinstance(error, UserError):
        log(f"error: {error}")
        return EXIT_USER_ERROR
    if not debug:
        last = traceback.extract_tb(error.__traceback__)[-1:] or [None]
        at = f" (at {Path(last[0].filename).name}:{last[0].lineno})" if last[0] else ""
        log(f"error: unexpected {type(error).__name__}: {error}{at}\n  to do: run again with --debug for the traceback")
    return EXIT_CRASH


def main(stage: str, run: Run, config_type: type[Section], inputs_type: type[Section]) -> int:
    """The body of a stage's `__main__`: run the job named on the command line; returns the exit code.

    Anything but a job file is handed to `tapeout STAGE`, in place of this process.
    """
    if not sys.argv[1:2] or not sys.argv[1].endswith(".json"):
        os.execv(sys.executable, [sys.executable, "-m", "pipeline", stage, *sys.argv[1:]])
    signal.signal(signal.SIGTERM, _on_term)
    gc.freeze()  # a million objects of the libraries stay for good: the collector need not walk them again and again
    debug = os.environ.get("TAPEOUT_DEBUG") == "1"
    try:
        job = read_json(Path(sys.argv[1]))
        out = Path(job["out"])
        metrics = run(config_type.model_validate(job["config"]), inputs_type.model_validate(job["inputs"]), out)
        write_json(out / METRICS, metrics)
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        return report(error, debug)
    finally:
        gc.unfreeze()  # libraries that look for leaks when the interpreter ends would find them all
