"""What the testbench's main module gets besides its own text: one-way inputs, and a record of what was compared.

The design's data inputs become copies behind an `assign` each: nothing it does to them reaches stimulus or reference.
Its clock stays direct (a copied clock wakes processes in another order and changes honest verdicts), so the record
guards it: in the testbench's tally block, at the very comparison, inputs and reference outputs are folded into 64 bits,
value and known mask; edges are counted at the reference. An honest run's record equals the reference's own.
"""

import re
from dataclasses import dataclass

from eval.grade.extract import TOP

CLOCK = re.compile(r"#\s*\d+\s*(\w+)\s*<?=\s*~\s*\1\b")
_DECLARATION = re.compile(
    r"\b(?:logic|reg|wire|bit|tri|byte|int|integer)\b(\s+signed\b|\s+unsigned\b)?\s*(\[\s*(\d+)\s*:\s*(\d+)\s*\])?\s*"
    r"((?:\w+\s*(?:=[^,;]*)?,\s*)*\w+\s*(?:=[^,;]*)?);"
)
_NAMED = re.compile(r"\s*\.\s*(?:(?P<all>\*)|(?P<port>\w+)\s*(?:\((?P<net>.*)\))?)\s*", re.DOTALL)
_LAST_NAME = re.compile(r"(\w+)\s*(?:\[[^\]]*\]\s*)*(?:=.*)?\Z", re.DOTALL)


@dataclass(frozen=True)
class Pin:
    """A port of an instance and what it is connected to, as it stands from `start` to `end`."""

    port: str
    net: str
    start: int
    end: int


def widths_of(plain: str) -> dict[str, tuple[str, int]]:
    """Of every vector that the module declares with literal bounds: `signed` or nothing, and its width."""
    found: dict[str, tuple[str, int]] = {}
    for sign, bounds, high, low, names in _DECLARATION.findall(plain):
        width = abs(int(high) - int(low)) + 1 if bounds else 1
        for name in names.split(","):
            found.setdefault(name.split("=")[0].strip(), (sign.strip(), width))
    return found


def _listed(plain: str, at: int) -> list[tuple[int, int]]:
    """Where each item of the list stands whose parenthesis opens at `at`; the last ends where the list does."""
    depth, start, found = 0, at + 1, list[tuple[int, int]]()
    for sign in re.compile(r"[()\[\]{},]").finditer(plain, at):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(sign.group(), 0)
        if depth == 0 or (depth == 1 and sign.group() == ","):
            found.append((start, sign.start()))
            start = sign.end()
        if depth == 0:
            break
    return found


def _opened(plain: str, before: str, name: str = "") -> re.Match[str] | None:
    """The match of `name` between `before` (parameters may follow it) and the parenthesis that opens a list."""
    found = re.search(rf"{before}\s*(?P<parameters>#\s*(?=\())?", plain)
    if not found:
        return None
    at = _listed(plain, found.end())[-1][1] + 1 if found["parameters"] else found.end()
    return re.compile(rf"\s*{name}\s*(?=\()").match(plain, at)


def ports_of(plain: str, module: str) -> list[str]:
    """A module's ports in order, of a header in either style."""
    header = _opened(plain, rf"\bmodule\s+{module}\b")
    items = [plain[a:b] for a, b in _listed(plain, header.end())] if header else []
    return [last.group(1) for item in items if (last := _LAST_NAME.search(item.strip()))]


def instance(plain: str, module: str, ports: list[str]) -> tuple[str, list[Pin]] | None:
    """The instance's name, and its pins, connected by name, by `.*` or in the order of `ports`; None without one."""
    found = _opened(plain, rf"\b{module}\b", r"(?P<name>\w+)")
    if not found:
        return None
    pins, rest = list[Pin](), None
    for i, (start, end) in enumerate(_listed(plain, found.end())):
        named = _NAMED.fullmatch(plain, start, end)
        if named and named["all"]:
            rest = start, end
        elif named:
            net = named["net"] if named["net"] is not None else named["port"]
            pins.append(Pin(named["port"], net.strip(), start, end))
        elif i < len(ports) and plain[start:end].strip():
            pins.append(Pin(ports[i], plain[start:end].strip(), start, end))
    of_all = [port for port in ports if port not in {pin.port for pin in pins}] if rest else []
    return found["name"], pins + [Pin(port, port, *rest) for port in of_all if rest]


def _slices(name: str, width: int) -> list[str]:
    """A vector in pieces of at most 64 bits (a longer product would cost more than all else)."""
    if width <= 64:
        return [name]
    return [f"{name}[{min(at + 63, width - 1)}:{at}]" for at in range(0, width, 64)]


def _fold(suffix: str, key: str, piece: str) -> str:
    """One step of the record. Its halves change places, lest the top bits of two pieces cancel whatever the key is."""
    record = f"record{suffix}"
    return f"{record} = {{{record}[31:0], {record}[63:32]}} * 64'd{key} + {piece};"


def _record(vectors: list[tuple[str, int]], suffix: str, key: str) -> tuple[str, str]:
    """Declarations, and statements that fold value and known mask of the vectors, packed side by side."""
    total = sum(width for _, width in vectors)
    if not total:
        return "", ""
    seen, value, known = (f"{name}{suffix}" for name in ("seen", "value", "known"))
    lines = [f"{seen} = {{{', '.join(name for name, _ in vectors)}}};", f"{value} = {seen};"]
    lines.append(f"{known} = ~({seen} ^ {seen});")
    lines += [_fold(suffix, key, piece) for name in (value, known) for piece in _slices(name, total)]
    return f"reg [{total}-1:0] {seen}; bit [{total}-1:0] {value}, {known};", " ".join(lines)


def _record_unmeasured(nets: list[str], suffix: str, key: str) -> tuple[str, str]:
    """The same of nets whose width only the compiler knows: one by one, piece by piece in a loop."""
    declared, lines = [], []
    for i, net in enumerate(nets):
        value, known, at = (f"{name}{i}{suffix}" for name in ("value", "known", "at"))
        declared.append(f"bit [($bits({net}) + 63) / 64 * 64 - 1:0] {value}, {known}; int {at};")
        lines.append(f"{value} = {net}; {known} = ~({net} ^ {net});")
        for name in (value, known):
            step = _fold(suffix, key, f"{name}[{at} +: 64]")
            lines.append(f"for ({at} = 0; {at} < $bits({net}); {at} = {at} + 64) {step}")
    return " ".join(declared), " ".join(lines)


def _tally(plain: str, clock: str) -> int | None:
    """Where the testbench is about to judge: before the first `if` of the block that the clock starts."""
    blocks = re.finditer(rf"\balways\s*@\s*\([^)]*\b{clock}\b[^)]*\)\s*begin\b", plain)
    for block in blocks:
        judged = re.compile(r"\bif\s*\(").search(plain, block.end())
        if judged and re.search(r"match|_ref|ok|error|bad", plain[judged.start() : judged.start() + 200]):
            return judged.start()
    return None


def guard(plain: str, ports: list[str], suffix: str, mark: str, key: str) -> list[tuple[int, int, str]] | None:
    """(start, end, text) to put in place of parts of `body`, the testbench's main module up to its `endmodule`.

    `plain` is `body` with comments and strings blanked, every character at its place; `ports` are the reference's. None
    where what the design is connected to cannot be read.
    """
    clocked, widths = CLOCK.search(plain), widths_of(plain)
    clock = clocked.group(1) if clocked else ""
    design, reference = instance(plain, TOP, ports), instance(plain, "RefModule", ports)
    if design is None or not design[1]:
        return None
    edits: dict[tuple[int, int], list[str]] = {}
    added, nets = [], list[str]()
    for pin in design[1]:
        joined = pin.net
        if pin.net and pin.net != clock and not re.search(r"_dut\b", pin.net):
            sign, width = widths.get(pin.net, ("", 0))
            joined = f"{pin.port}_copy{suffix}"
            added.append(f"wire {sign} [{width or f'$bits({pin.net})'}-1:0] {joined}; assign {joined} = {pin.net};")
            nets.append(pin.net)
        edits.setdefault((pin.start, pin.end), []).append(f".{pin.port}({joined})")
    pins = reference[1] if reference else []
    nets += sorted({*re.findall(r"\b\w+_ref\b", plain)} & {*widths, *(pin.net for pin in pins)})
    measured = _record([(net, widths[net][1]) for net in nets if net in widths], suffix, key)
    unmeasured = _record_unmeasured([net for net in nets if net not in widths], suffix, key)
    fold = f"{measured[1]} {unmeasured[1]}".strip()
    placed = [(start, end, ", ".join(texts)) for (start, end), texts in edits.items()]
    if fold and clock:
        added += [measured[0], unmeasured[0], f"bit [63:0] record{suffix}; int edges{suffix};"]
        at = next((f"{reference[0]}.{pin.port}" for pin in pins if reference and pin.net == clock), clock)
        added.append(f"always @(posedge {at}, negedge {at}) edges{suffix} = edges{suffix} + 1;")
        place = _tally(plain, clock)
        if place is None:
            added.append(f"always @({clock}) begin {fold} end")
        else:
            placed.append((place, place, f"{fold} "))
        added.append(f'final $display("{mark}Witness: %0h.%0d", record{suffix}, edges{suffix});')
    return [*placed, (len(plain), len(plain), "\n".join(added) + "\n")]
