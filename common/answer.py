"""The body of a process's `__main__`: a job in, JSON out, errors as exit codes.

A user's error is one screen on standard error and exit code 2; anything else is a crash, 1, with its traceback where
TAPEOUT_DEBUG is 1. Ctrl-C is 130 and says nothing.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import EXIT_USER_ERROR, UserError, from_os_error
from common.files import read_json
from common.progress import log

EXIT_CRASH = 1
BROKEN = 128 + signal.SIGPIPE


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


def reported(work: Callable[[], int], *passed_on: type[BaseException]) -> int:
    """The exit code of `work`, or that of what ended it, which is then said."""
    try:
        return work()
    except passed_on:
        raise
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        return report(error, os.environ.get("TAPEOUT_DEBUG") == "1")


def read_job() -> Any:
    """The job named on the command line. Raises UserError where there is none."""
    if len(sys.argv) != 2:
        raise UserError("one job file is needed", where=" ".join(sys.argv[1:]), fix="name a file of JSON")
    try:
        return read_json(Path(sys.argv[1]))
    except ValueError as error:
        raise UserError(f"not a file of JSON: {error}", where=sys.argv[1], fix="correct the job") from None


def answer(work: Callable[[Any], Any], exit_code: Callable[[Any], int] = lambda _said: 0) -> int:
    """`work` on the job: what it returns is the last line of standard output, as JSON (None: nothing is printed)."""

    def whole() -> int:
        said = work(read_job())
        if said is not None:
            print(json.dumps(said), flush=True)
        return exit_code(said)

    return unbroken(lambda: reported(whole, BrokenPipeError))


def unbroken(work: Callable[[], int]) -> int:
    """`work`'s exit code once all that it printed is out; 141 where the reader of a pipe has left before."""
    try:
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        # What is still buffered goes nowhere, or the interpreter would complain of it at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(nowhere, stream.fileno())
        return BROKEN
    return code
