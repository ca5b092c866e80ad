"""A simulation worker: one process, one thread, that grades what it reads line by line on standard input.

Forking from a process without threads is safe and cheap, and the event loop of the client is never held up.
"""

import contextlib
import functools
import json
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

from common.benchmark.problems import Problem
from eval.grade import preprocess, simulate
from eval.grade.extract import Rule, extract
from eval.grade.simulate import Simulator
from eval.grade.verdict import Verdict
from eval.sandbox import launcher_pool as launchers
from eval.sandbox.run import MIB, Limits

MEMORY = 4096 * MIB


class _TooLongError(Exception):
    """Reading a text in this process took all the time that it may."""


def _stop(_signal: int, _frame: Any) -> None:
    raise _TooLongError


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def admitted(completion: str, interface: str, simulator: Simulator, rule: Rule = "default") -> str | Verdict:
    """The text to simulate, or the verdict where there is none: also on one that is too much to read."""
    try:
        with _at_most(simulator.limits.seconds):
            design = extract(completion, interface, rule)
        if design is None:
            return Verdict("no_module", "the completion defines no TopModule")
        return preprocess.admitted(design, simulator.sandbox, simulator.limits, _at_most)
    except (_TooLongError, MemoryError, RecursionError):
        return Verdict("timeout", "reading the completion takes more time or memory than one may")


@functools.lru_cache(maxsize=256)
def _problem(text: str) -> Problem:
    return Problem(**json.loads(text))


def answer(line: str) -> dict[str, Any]:
    """To one line: a problem, a tab (JSON writes none), and what to do with it."""
    of, _, what = line.partition("\t")
    problem, job = _problem(of), json.loads(what)
    simulator = Simulator(job["sandbox"], Limits(**job["limits"]))
    if job["completion"] is None:
        return vars(simulate.golden(problem, simulator))
    design = admitted(job["completion"], problem.interface, simulator, job["extract"])
    if isinstance(design, Verdict):
        return vars(design)
    return vars(simulate.grade(problem, design, Verdict(**job["golden"]), simulator))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launchers.adopt_orphans()
    for line in sys.stdin:
        try:
            said = answer(line)
        except OSError as error:  # of this machine, not of the design: no verdict
            said = {"os_error": [error.errno or 0, error.strerror or str(error), error.filename]}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
