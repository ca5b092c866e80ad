"""What is said of one design, and how the tools' output is read for it."""

from dataclasses import dataclass
from pathlib import Path

from common.disk import need_room

CATEGORIES = (
    "passed",
    "syntax",
    "elaboration",
    "unresolved_port",
    "width_cast",
    "timeout",
    "mismatch",
    "runtime",
    "no_module",
    "rejected",
    "ungradable",
)
_LEAST_ROOM = 1 << 18


@dataclass(frozen=True)
class Verdict:
    """Of one simulation. `samples` and `witness` are what a golden run is compared by, `key` is what its witness was
    made with; `first_outputs` are those that mismatched first, at `first_time` (in the testbench's time unit)."""

    category: str
    detail: str = ""
    mismatches: int = 0
    samples: int = 0
    witness: str = ""
    key: int = 1
    first_outputs: tuple[str, ...] = ()
    first_time: int | None = None

    @property
    def passed(self) -> bool:
        return self.category == "passed"


def first_line(text: str) -> str:
    """The first line of a tool's output that tells of an error; the first at all where none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line or "sorry:" in line or "syntax error" in line]
    return (errors or lines or [""])[0][:300]


def check_room(folder: str) -> None:
    """A run that failed on a full disk says nothing of the design: OSError."""
    need_room(Path(folder), _LEAST_ROOM)
