"""A VCD dump (IEEE 1364-2005, section 18) as a table of text around one moment: a row a time, a column a signal."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_VAR = re.compile(r"\$var\s+\w+\s+(\d+)\s+(\S+)\s+(\S+)(?:\s+(\[[^\]]*\]))?\s+\$end")
_SCOPE = re.compile(r"\$scope\s+\w+\s+(\S+)\s+\$end")
MOST_CHANGES = 500_000


@dataclass(frozen=True)
class Waves:
    """`names` in order of declaration; `rows` are (time, value of each name, bits as text) after every change; `wide`
    are the names of more than one bit (a dump leaves leading zeros out)."""

    names: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    wide: frozenset[str]

    def only(self, wanted: list[str]) -> "Waves":
        """Those of these signals that there are, and the rows where one of them changes."""
        columns = [self.names.index(name) for name in wanted if name in self.names]
        rows: list[tuple[int, tuple[str, ...]]] = []
        for time, values in self.rows:
            chosen = tuple(values[i] for i in columns)
            if not rows or rows[-1][1] != chosen:
                rows.append((time, chosen))
        return Waves(tuple(self.names[i] for i in columns), tuple(rows), self.wide)


def _declared(header: str, top: str) -> dict[str, list[tuple[str, int]]]:
    """Identifier code -> names and widths, declared directly in the scope `top` or brought there by the dump."""
    found: dict[str, list[tuple[str, int]]] = {}
    scopes: list[str] = []
    for statement in re.findall(r"\$(?:scope|upscope|var)\b.*?\$end", header, re.DOTALL):
        scope, var = _SCOPE.match(statement), _VAR.match(statement)
        if scope:
            scopes.append(scope.group(1))
        elif statement.startswith("$upscope"):
            scopes[-1:] = []
        elif var and scopes[-1:] == [top]:
            found.setdefault(var.group(2), []).append((var.group(3), int(var.group(1))))
    return found


def _changes(body: str) -> Iterator[tuple[int, str, str]]:
    """(time, code, bits) of every value change."""
    now = 0
    for number, line in enumerate(body.splitlines()):
        if number > MOST_CHANGES:
            return
        if line[:1] == "#" and line[1:].isdigit():
            now = int(line[1:])
        elif line[:1] in "01xzXZ" and len(line) > 1:
            yield now, line[1:].strip(), line[0].lower()
        elif line[:1] in "bB":
            bits, _, code = line[1:].partition(" ")
            yield now, code.strip(), bits.lower()


def read_waves(vcd: str, top: str) -> Waves:
    """The signals of the scope `top`; an empty table where the dump has none."""
    header, _, body = vcd.partition("$enddefinitions")
    codes = _declared(header, top)
    declared = [signal for several in codes.values() for signal in several]
    names = [name for name, _ in declared]
    values = dict.fromkeys(names, "x")
    rows: list[tuple[int, tuple[str, ...]]] = []
    for time, code, bits in _changes(body):
        for name, _ in codes.get(code, ()):
            values[name] = bits
        if code in codes:
            if rows and rows[-1][0] == time:
                rows.pop()
            rows.append((time, tuple(values[name] for name in names)))
    return Waves(tuple(names), tuple(rows), frozenset(name for name, width in declared if width > 1))


def shown(bits: str) -> str:
    """A value for people: a bit as it is, known bits in hexadecimal, others as they are."""
    if len(bits) == 1 or set(bits) - {"0", "1"}:
        return bits
    return f"h{int(bits, 2):x}"


def window(waves: Waves, at: int, before: int, after: int) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The rows around the last change at or before `at`."""
    row = max((i for i, (time, _) in enumerate(waves.rows) if time <= at), default=0)
    return waves.rows[max(0, row - before) : row + after + 1]


def excerpt(waves: Waves, wanted: list[str], at: int, before: int = 6, after: int = 4) -> str:
    """Rows around the time `at`; `>` marks where a `*_dut` differs from its `*_ref` (X in the reference aside)."""
    columns = [waves.names.index(name) for name in wanted if name in waves.names]
    if not columns or not waves.rows:
        return ""
    table = [["time", *(waves.names[i] for i in columns)]]
    marks = [" "]
    for time, values in window(waves, at, before, after):
        table.append([str(time), *(shown(values[i]) for i in columns)])
        marks.append(">" if differing(waves.names, values) else " ")
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n".join(f"{mark} {line}" for mark, line in zip(marks, lines, strict=True))


def differing(names: tuple[str, ...], values: tuple[str, ...]) -> set[str]:
    """The `*_dut` signals that differ from their `*_ref` where that is known."""
    known, found = dict(zip(names, values, strict=True)), set[str]()
    for name, reference in known.items():
        side = name.removesuffix("_ref") + "_dut"
        if name.endswith("_ref") and side in known:
            other = known[side]
            width = max(len(reference), len(other))
            pairs = zip(reference.rjust(width, _fill(reference)), other.rjust(width, _fill(other)), strict=True)
            if any(a not in "xz" and a != b for a, b in pairs):
                found.add(side)
    return found


def _fill(bits: str) -> str:
    """What stands for the leading bits that a dump leaves out."""
    return bits[0] if bits[0] in "xz" else "0"
