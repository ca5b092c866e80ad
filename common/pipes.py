"""Output that nobody reads any more: `tapeout inspect DIR | head` ends without a word, as other programs do."""

import os
import signal
import sys
from collections.abc import Callable

BROKEN = 128 + signal.SIGPIPE


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
