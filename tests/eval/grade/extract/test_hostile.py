"""Texts made to be slow to read: the time they take grows as they do, so that none runs into the limit of a sample."""

import pytest

from eval.grade import worker
from eval.grade.simulate import Simulator
from eval.grade.verdict import Verdict
from eval.sandbox.run import Limits, find_confinement

SIZE = 120_000
HOSTILE = {
    "comments that never end": ("", "/*\n", "*/ x"),
    "packages that never end": ("", "package a;\n", "// endpackage\n"),
    "tasks that never end": ("```v\n", "task a;\n", "\n```\nmodule TopModule; assign q = 1; endmodule\n"),
    "a string of escapes": ('"', '\\"', ""),
    "space in a block": ("module TopModule; always", " ", "x endmodule"),
    "space behind a mark": ("[BEGIN]", " ", "x"),
    "a fence of modules on its line": ("```", "module ", "```"),
    "a channel's long name": ("<|channel|>", "a", " " * 50_000),
    "ends of answers": ("", "</s>", "x"),
    "thoughts in a module": ("module a;\n", "<think>", "endmodule"),
    "open brackets": ("module TopModule; assign q = ", "x[", "; endmodule"),
    "modules in a chain": (
        "module TopModule; m0 a(); endmodule\n",
        "".join(f"module m{i}; m{i + 1} a(); endmodule\n" for i in range(6000)),
        "",
    ),
}


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(find_confinement(), Limits(seconds=15.0))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_read_in_time(name: str, simulator: Simulator) -> None:
    head, unit, tail = HOSTILE[name]
    found = worker.admitted(head + unit * max(SIZE // len(unit), 1) + tail, "", simulator)
    assert not (isinstance(found, Verdict) and found.category == "timeout"), found
