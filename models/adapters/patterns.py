"""A stranger's patterns against module names, bounded: a regular expression can take longer than the world lasts.

Names with dots need no search. Anything else is matched by a process of its own, which may compute for `LIMIT` seconds.
Run as `python -m models.adapters.patterns`, it reads [patterns, modules] from standard input.
"""

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence

from common.errors import UserError
from common.process import start

LIMIT = 2
"""Seconds of computing, however busy the machine is: thousands of names against hundreds of honest patterns take less
than one."""
MOST = 1_000_000
"""Matches that are made here: one takes less than a microsecond."""
_PLAIN = re.compile(r"\^?(?:[\w.-]|\\\.)*\$?")
"""Without repetition or choice: matched in time that grows with the name's length only."""


def matched(patterns: Sequence[str], modules: Sequence[str], where: str) -> dict[str, str]:
    """Of each module the first pattern that matches it or its tail; modules without one are left out.

    Raises UserError, which names `where` and the pattern, for one that does not compile or takes too long.
    """
    if len(patterns) * len(modules) <= MOST and all(_PLAIN.fullmatch(pattern) for pattern in patterns):
        return dict(first_matches(patterns, modules))
    with start(__name__, with_parent=False, site=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            answer, _ = child.communicate(json.dumps([patterns, modules]).encode())
        finally:
            child.kill()
    if child.returncode == -signal.SIGKILL:
        raise UserError(
            f"matching its patterns takes longer than {LIMIT} s",
            where=f"{where}: {_shortened(max(patterns, key=len))}",
            fix="write module names, or patterns without repetition inside repetition",
        )
    if child.returncode:
        raise UserError("its patterns cannot be matched", where=where, fix="write module names instead")
    said = json.loads(answer)
    if "pattern" in said:
        what = f"not a regular expression: {said['error']}"
        raise UserError(what, where=f"{where}: {_shortened(said['pattern'])}", fix="correct the pattern")
    return said["matched"]


def first_matches(patterns: Sequence[str], modules: Sequence[str]) -> list[tuple[str, str]]:
    compiled = [(pattern, re.compile(rf"(.*\.)?({pattern})$")) for pattern in patterns]
    found = ((name, next((pattern for pattern, each in compiled if each.match(name)), None)) for name in modules)
    return [(name, pattern) for name, pattern in found if pattern is not None]


def _shortened(pattern: str) -> str:
    return pattern if len(pattern) <= 80 else f"{pattern[:77]}..."


def _answer(patterns: Sequence[str], modules: Sequence[str]) -> dict[str, object]:
    for pattern in patterns:
        try:
            re.compile(rf"(.*\.)?({pattern})$")
        except (re.error, RecursionError, OverflowError, MemoryError) as error:
            return {"pattern": pattern, "error": str(error) or type(error).__name__}
    return {"matched": dict(first_matches(patterns, modules))}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))  # the kernel kills what goes on
    print(json.dumps(_answer(*json.load(sys.stdin))))
