"""A compiled program's text (XLA's HLO for TPU) read: cycles as the compiler estimates them, bytes between devices.

A loop counts as often as it turns: its condition names the last turn. Of a conditional, the dearer branch counts.
Where the cost model gives an operation no cycles (kernels, collectives, copies ahead of need), it has none here.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16, "token": 0}
"""Of types whose name does not end with their bits."""

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b(pred|token|bf16|[sufc]\d+\w*)\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(
    r"\b(calls|body|condition|to_apply|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_GROUPS = re.compile(r"replica_groups=(\{\{[\d,]*\}|\[[\d,]+\]<=|mesh\[[^\]]*\] \{[^}]*\})")


def array_bytes(text: str) -> Iterator[int]:
    """Bytes of the arrays that a shape names."""
    for kind, sizes in _ARRAY.findall(text):
        bits = 8 * BYTES[kind] if kind in BYTES else int(re.sub(r"\D.*", "", kind[1:]) or 0)
        count = math.prod(int(size) for size in sizes.split(",") if size)
        yield -(-count * bits // 8)


def group_size(line: str) -> int:
    """How many devices take part together in the collective of this line; 1 where it does not say."""
    found = _GROUPS.search(line)
    if found is None:
        return 1
    text = found[1]
    if text.startswith("{{"):
        return text.count(",") + 1
    if text.startswith("["):
        return int(text[1 : text.index("]")].split(",")[1])
    axes = dict(re.findall(r"'(\w+)'=(\d+)", text))
    return math.prod(int(axes[name]) for name in re.findall(r"'(\w+)'", text[text.index("]") :]))


@dataclass
class Cost:
    """Of one run of something: cycles, and bytes that each device is sent, by the kind of collective."""

    cycles: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    """A share of (n - 1) / n of an array gathered from n devices, twice that of one added up."""
    gathered: int = 0
    """Bytes of the arrays that all-gathers give."""
    prefetched: int = 0
    """Bytes copied ahead of need, which cost no cycles."""

    def add(self, other: "Cost", times: int = 1) -> None:
        self.cycles += times * other.cycles
        self.gathered += times * other.gathered
        self.prefetched += times * other.prefetched
        for kind, size in other.sent.items():
            self.sent[kind] += times * size


@dataclass(frozen=True)
class Operation:
    name: str
    kind: str
    shape: str
    rest: str

    @cached_property
    def called(self) -> dict[str, list[str]]:
        return {
            role: [name.strip().lstrip("%") for name in names.strip("{}").split(",")]
            for role, names in _CALLED.findall(self.rest)
        }

    @property
    def own(self) -> Cost:
        """Without what it calls."""
        cost = Cost(cycles=sum(map(int, _CYCLES.findall(self.rest))))
        kind = self.kind.removesuffix("-start")
        if kind in COLLECTIVES:
            n, arrays = group_size(self.rest), list(array_bytes(self.shape))
            # A start gives its operand too, and words to wait at: the largest array is the result (or as large).
            size = max(arrays, default=0) if self.kind.endswith("-start") else sum(arrays)
            share = 1.0 if kind in ("collective-permute", "collective-broadcast") else (n - 1) / max(n, 1)
            whole = size * n if kind == "reduce-scatter" and not self.kind.endswith("-start") else size
            cost.sent[kind] += int((2 if kind == "all-reduce" else 1) * share * whole)
            cost.gathered += size if kind == "all-gather" else 0
        elif self.kind in ("copy-start", "slice-start"):
            cost.prefetched += list(array_bytes(self.shape))[-2]  # (.., what is copied, a word to wait at)
        return cost


class Program:
    """The text of one compiled module. Loops whose last turn is not written in it count `open_turns` times."""

    def __init__(self, text: str, open_turns: int = 1):
        self.open_turns = open_turns
        self.computations: dict[str, list[Operation]] = {}
        self.entry = ""
        inside: list[Operation] = []
        for line in text.splitlines():
            if head := _HEAD.match(line):
                inside = self.computations.setdefault(head[1], [])
                self.entry = head[1] if line.startswith("ENTRY") else self.entry
            elif (found := _LINE.match(line)) and (made := operation(found[1], found[2])):
                inside.append(made)
        self._costs: dict[str, Cost] = {}

    @cached_property
    def cost(self) -> Cost:
        return self.of(self.entry)

    def of(self, name: str) -> Cost:
        """One run of a computation."""
        if name not in self._costs:
            total = Cost()
            for each in self.computations.get(name, ()):
                total.add(each.own)
                self._add_called(total, each)
            self._costs[name] = total
        return self._costs[name]

    def _add_called(self, total: Cost, each: Operation) -> None:
        called = each.called
        if each.kind == "while":
            total.add(self.of(called["body"][0]), self.turns(called["condition"][0]))
        elif each.kind == "conditional":
            branches = [self.of(name) for names in called.values() for name in names]
            total.add(max(branches, key=lambda cost: cost.cycles))
        elif each.kind in ("call", "async-start"):
            for names in called.values():
                for name in names:
                    total.add(self.of(name))
        elif each.kind == "fusion":  # its cycles are its own; collectives are fused with what they wait for
            for name in called.get("calls", ()):
                inner = self.of(name)
                total.add(Cost(0, inner.sent, inner.gathered, 0))

    def turns(self, condition: str) -> int:
        """The largest whole number that a loop's condition compares with, or holds for a comparison fused into it."""
        inside = self.computations.get(condition, ())
        held = {each.name: int(each.rest.split(")")[0]) for each in inside if _whole(each)}
        compared = {
            name
            for each in inside
            if each.kind in ("compare", "fusion")
            for name in re.findall(r"%([\w.\-]+)", each.rest.split(")")[0])
        }
        return max((number for name, number in held.items() if name in compared), default=self.open_turns)


def _whole(each: Operation) -> bool:
    return each.kind == "constant" and re.match(r"[su](32|64)\[\]", each.shape) is not None


def operation(name: str, text: str) -> Operation | None:
    """`shape kind(operands), ...`; the shape may be a tuple."""
    depth, end = 0, len(text)
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == " " and depth == 0:
            end = at
            break
    found = re.match(r"([\w\-]+)\(", text[end + 1 :])
    if found is None:
        return None
    return Operation(name, found[1], text[:end], text[end + 1 + len(found[0]) :])
