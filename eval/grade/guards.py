"""What the testbench's main module gets besides its own text: one-way inputs, and a record of what was compared.

The design's data inputs become copies behind an `assign` each: nothing it does to them reaches stimulus or reference.
Its clock stays direct (a copied clock wakes processes in another order and changes honest verdicts), so the record
guards it: in the testbench's tally block, at the very comparison, inputs and reference outputs are folded into 64 bits,
value and known mask; edges are counted at the reference. An honest run's record equals the reference's own.
"""

import re

from eval.grade.extract import TOP

CLOCK = re.compile(r"#\s*\d+\s*(\w+)\s*<?=\s*~\s*\1\b")
_DECLARATION = re.compile(
    r"\b(?:logic|reg|wire|bit|tri|byte|int|integer)\b(\s+signed\b|\s+unsigned\b)?\s*(\[\s*(\d+)\s*:\s*(\d+)\s*\])?\s*"
    r"((?:\w+\s*(?:=[^,;]*)?,\s*)*\w+\s*(?:=[^,;]*)?);"
)
_PIN = re.compile(r"\.\s*(\w+)\s*(?:\(([^()]*)\))?")
_FOLD = "64'd6364136223846793005"


def widths_of(plain: str) -> dict[str, tuple[str, int]]:
    """Of every vector that the module declares with literal bounds: `signed` or nothing, and its width."""
    found: dict[str, tuple[str, int]] = {}
    for sign, bounds, high, low, names in _DECLARATION.findall(plain):
        width = abs(int(high) - int(low)) + 1 if bounds else 1
        for name in names.split(","):
            found.setdefault(name.split("=")[0].strip(), (sign.strip(), width))
    return found


def instance(plain: str, module: str) -> tuple[str, list[re.Match[str]]] | None:
    """The instance's name, and its pins as they are connected, each by name; None where it has none such."""
    found = re.search(rf"\b{module}\s+(\w+)\s*\(", plain)
    if not found:
        return None
    end = re.search(r"\)\s*;", plain[found.end() :])
    pins = list(_PIN.finditer(plain, found.end(), found.end() + (end.start() if end else 0)))
    return found.group(1), pins


def _slices(name: str, width: int) -> list[str]:
    """A vector in pieces of at most 64 bits (a longer product would cost more than all else)."""
    if width <= 64:
        return [name]
    return [f"{name}[{min(at + 63, width - 1)}:{at}]" for at in range(0, width, 64)]


def _record(vectors: list[tuple[str, int]], suffix: str) -> str:
    """Statements that fold value and known mask of the vectors, packed side by side, into the record."""
    total = sum(width for _, width in vectors)
    if not total:
        return ""
    record, seen, value, known = (f"{name}{suffix}" for name in ("record", "seen", "value", "known"))
    lines = [f"{seen} = {{{', '.join(name for name, _ in vectors)}}};", f"{value} = {seen};"]
    lines.append(f"{known} = ~({seen} ^ {seen});")
    lines += [f"{record} = {record} * {_FOLD} + {piece};" for name in (value, known) for piece in _slices(name, total)]
    return " ".join(lines)


def _tally(plain: str, clock: str) -> int | None:
    """Where the testbench is about to judge: before the first `if` of the block that the clock starts."""
    blocks = re.finditer(rf"\balways\s*@\s*\([^)]*\b{clock}\b[^)]*\)\s*begin\b", plain)
    for block in blocks:
        judged = re.compile(r"\bif\s*\(").search(plain, block.end())
        if judged and re.search(r"match|_ref|ok|error|bad", plain[judged.start() : judged.start() + 200]):
            return judged.start()
    return None


def guard(plain: str, suffix: str, mark: str) -> list[tuple[int, int, str]]:
    """(start, end, text) to put in place of parts of `body`, the testbench's main module up to its `endmodule`.

    `plain` is `body` with comments and strings blanked, every character at its place.
    """
    clocked, widths = CLOCK.search(plain), widths_of(plain)
    clock = clocked.group(1) if clocked else ""
    design, reference = instance(plain, TOP), instance(plain, "RefModule")
    edits: list[tuple[int, int, str]] = []
    added, vectors = [], []
    for pin in design[1] if design else []:
        net = (pin.group(2) if pin.group(2) is not None else pin.group(1)).strip()
        if not net or net == clock or re.search(r"_dut\b", net):
            continue
        sign, width = widths.get(net, ("", 0))
        copy = f"{pin.group(1)}_copy{suffix}"
        added.append(f"wire {sign} [{width or f'$bits({net})'}-1:0] {copy}; assign {copy} = {net};")
        edits.append((pin.start(), pin.end(), f".{pin.group(1)}({copy})"))
        if width:
            vectors.append((net, width))
    outputs = sorted(set(re.findall(r"\b\w+_ref\b", plain)))
    vectors += [(name, widths[name][1]) for name in outputs if name in widths]
    fold = _record(vectors, suffix)
    if not fold or not clock:
        return [*edits, (len(plain), len(plain), "\n".join(added) + "\n")]
    total = sum(width for _, width in vectors)
    added.append(f"bit [63:0] record{suffix}; int edges{suffix}; reg [{total}-1:0] seen{suffix};")
    added.append(f"bit [{total}-1:0] value{suffix}, known{suffix};")
    pins = {
        (p.group(2) if p.group(2) is not None else p.group(1)).strip(): p.group(1) for p in (reference or ("", []))[1]
    }
    at = f"{reference[0]}.{pins[clock]}" if reference and clock in pins else clock
    added.append(f"always @(posedge {at}, negedge {at}) edges{suffix} = edges{suffix} + 1;")
    place = _tally(plain, clock)
    if place is None:
        added.append(f"always @({clock}) begin {fold} end")
    else:
        edits.append((place, place, f"{fold} "))
    added.append(f'final $display("{mark}Witness: %0h.%0d", record{suffix}, edges{suffix});')
    return [*edits, (len(plain), len(plain), "\n".join(added) + "\n")]
