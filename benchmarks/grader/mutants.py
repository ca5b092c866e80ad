"""Designs made wrong on purpose, one place at a time, out of a right one: what a grader must tell from it."""

import random
import re
from collections.abc import Callable, Iterator

Change = Callable[[re.Match[str]], str]
_SWAPPED = {"&": "|", "|": "&", "^": "&", "+": "-", "-": "+", "==": "!=", "!=": "==", "&&": "||", "||": "&&"}
_SWAPPED |= {"<": ">", ">": "<", "<<": ">>", ">>": "<<", "*": "+"}
_CONSTANT = r"\b\d+'[bdhBDH][0-9a-fA-F]+\b|(?<=[=(:?+-] )\d+(?=[;)]|\s*[?:])|'[01]\b"
_TARGET = r"(\w+(?:\[[^\]]*\])?|\{[^}]*\})"

KINDS: dict[str, tuple[str, Change]] = {
    "operator": (r"(?<=[\w\])] )(&&|\|\||==|!=|<<|>>|[&|^+*-]|[<>](?!=))(?= [\w~!({\[])", lambda m: _SWAPPED[m[1]]),
    "constant": (_CONSTANT, lambda m: f"({m[0]} + 1)"),
    "edge": (r"\bposedge\b", lambda m: "negedge"),
    "reset": (r"\bif \((!|~)?(reset|resetn|rst|areset|r|clear|ar)\)", lambda m: f"if ({'' if m[1] else '!'}{m[2]})"),
    "bit order": (r"\{(\w[\w\[\]:]*), ?(\w[\w\[\]:]*)(?=[,}])", lambda m: f"{{{m[2]}, {m[1]}"),
    "bit index": (r"(?<=\w)\[(\d+)\](?! *;)", lambda m: f"[{int(m[1]) ^ 1}]"),
    "dropped branch": (r"\belse\b(?! ?(?:if|begin))[^;]*;|^\s*[\w']+ *: *\w[^;:?]*;", lambda m: ";"),
    "inverted condition": (r"\bif \(([^()]+)\)", lambda m: f"if (!({m[1]}))"),
    "swapped choice": (r"\? ([^:?;]+) : ([^:?;]+);", lambda m: f"? {m[2]} : {m[1]};"),
    "inverted output": (rf"\bassign {_TARGET} = ([^;]+);", lambda m: f"assign {m[1]} = ~({m[2]});"),
    "inverted value": (r"([\w\]}]) (<?=) ([^;=]+);", lambda m: f"{m[1]} {m[2]} ~({m[3]});"),
    "dropped assignment": (rf"^\s*(assign )?{_TARGET} <?= [^;]+;", lambda m: ";"),
    "stuck at one": (r"([\w\]}]) (<?=) ([^;=]+);", lambda m: f"{m[1]} {m[2]} '1;"),
    "second driver": (rf"\bassign {_TARGET} = ([^;]+);", lambda m: f"{m[0]} assign {m[1]} = ~({m[2]});"),
    "late": (rf"\bassign {_TARGET} = ", lambda m: f"assign #2 {m[1]} = "),
    "blocking": (r"(?<=\w) <= (?=[^;]+;)", lambda m: " = "),
    "narrower port": (
        r"\b(input|output)(\s+(?:logic|reg|wire)?\s*)\[(\d+):0\]",
        lambda m: f"{m[1]}{m[2]}[{int(m[3]) - 1}:0]",
    ),
    "reversed range": (r"\b((?:input|output)\b[^\[,;)]*)\[(\d+):0\]", lambda m: f"{m[1]}[0:{m[2]}]"),
    "runs once": (r"\balways(_\w+)?\s*(@ ?\*|@ ?\([^)]*\))?", lambda m: "initial "),
    "dropped semicolon": (r";(?=\s*(?:end|assign|\w+ <?=))", lambda m: ""),
    "unknown name": (r"(<?=) (?=[^;]+;)", lambda m: f"{m[1]} absent_name ^ "),
    "unknown module": (r"\bendmodule\b", lambda m: "absent_module absent (); endmodule"),
    "no endmodule": (r"\bendmodule\s*\Z", lambda m: ""),
    "absent port": (
        r"\boutput\b((?:\s+(?:logic|reg|wire))?\s*(?:\[[^\]]*\])?\s*)(\w+)",
        lambda m: f"output{m[1]}other_{m[2]}",
    ),
    "cut off": (r"(?<=;)\n[^;]*\bendmodule\s*\Z", lambda m: "\n  assign"),
    "nothing driven": (r"\);.*?\bendmodule\b", lambda m: ");\nendmodule"),
}
"""Places to change, and how. The header counts only for the kinds that change ports; see `mutants`."""
BROKEN = {"dropped semicolon", "unknown name", "unknown module", "no endmodule", "absent port", "cut off"}
ON_PORTS = {"narrower port", "reversed range", "absent port", "nothing driven"}


def _header_end(design: str) -> int:
    start = re.search(r"\bmodule\s+TopModule\b", design)
    return design.index(";", start.end() if start else 0)


def mutants(design: str, seed: str) -> Iterator[tuple[str, str]]:
    """(kind, design with one place changed), for every kind that finds a place; the same for the same seed."""
    draw, body = random.Random(seed), _header_end(design)
    for kind, (pattern, change) in KINDS.items():
        flags = re.DOTALL if kind in ("nothing driven", "cut off") else re.MULTILINE
        found = list(re.finditer(pattern, design, flags))
        places = [m for m in found if kind in ON_PORTS or kind in BROKEN or m.start() > body]
        if places:
            place = draw.choice(places)
            changed = design[: place.start()] + change(place) + design[place.end() :]
            if changed != design:
                yield kind, changed
