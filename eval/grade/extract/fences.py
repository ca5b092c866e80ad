"""Fenced blocks of a Markdown answer, as models write them: odd labels, in lists and quotes, closed late or never."""

import re
from dataclasses import dataclass

_OPEN = re.compile(r"^(?P<lead>[ \t]*(?:(?:[-*+>]|\d+[.)])[ \t]*)*)(?P<ticks>`{3,}|~{3,})(?P<info>[^`\n]*)$")
_INLINE_OPEN = re.compile(r"^(?P<lead>[^`\n]*?)(?P<ticks>`{3,})(?P<info>[ \t]*+\w*+[ \t]*+)$")
_CODE_AFTER = re.compile(r"(?P<code>(?:(?:macro)?module\s+\\?\w|package\s+\w+\s*;|`define\b|`timescale\b|//|/\*).*)$")
_LATE_CLOSE = re.compile(
    r"^(?P<code>.*\bend(?:module|package|primitive|interface)\b(?:[ \t]*:[ \t]*\w+)?[ \t]*)(?P<ticks>`{3,}|~{3,})"
)
_ONE_LINE = re.compile(r"^[ \t]*(`{3,}+)(?P<inside>[^`]++)\1[ \t]*$")
_LABEL = re.compile(r"^[ \t]*\{?[.#]?(?P<word>[\w+#-]+)")
_FOREIGN = re.compile(
    r"(?:ba|z)?sh|shell\S*|console|terminal|powershell|bat|tcl|c?make(?:file)?|python\d?|py(?:con)?|ipython|jsonc?|ya?ml"
    r"|toml|xml|html|css|svg|csv|ini|diff|patch|vhdl?|chisel|scala|c|h|cc|cpp|c\+\+|java|js|javascript|ts|typescript"
    r"|rust|rs|go|perl|ruby|lua|matlab|sql|latex|tex|dot|graphviz|mermaid|wavedrom|log|output|haskell|systemc",
    re.IGNORECASE,
)
"""Labels of what is no Verilog. Any other label, `text` among them, may be a design's."""


@dataclass(frozen=True)
class Fence:
    """One block: its text, whether its label is another language's, where it stands with its fences, and whether a line
    of its own closes it: where none does, prose may follow the code in it."""

    body: str
    foreign: bool
    start: int
    end: int
    closed: bool = True


@dataclass
class _Opened:
    ticks: str
    foreign: bool
    start: int
    quotes: int
    lines: list[str]

    def line(self, text: str) -> str:
        """A line of the block without the quote marks that the fence itself stands behind."""
        return re.sub(rf"^(?:[ \t]*>){{1,{self.quotes}}} ?", "", text) if self.quotes else text


def _opening(line: str, start: int) -> _Opened | None:
    mark = _OPEN.match(line) or _INLINE_OPEN.match(line)
    if mark is None or "//" in mark["lead"]:
        return None
    info, lines = mark["info"], list[str]()
    code = _CODE_AFTER.search(info)
    if code:
        info, lines = info[: code.start()], [code["code"] + "\n"]
    label = _LABEL.match(info)
    foreign = label is not None and _FOREIGN.fullmatch(label["word"]) is not None
    return _Opened(mark["ticks"], foreign, start, mark["lead"].count(">"), lines)


def _closes(line: str, opened: _Opened) -> tuple[bool, str, bool]:
    """Whether a line closes the block, the code that stands before the mark, and whether it opens the next block."""
    late = _LATE_CLOSE.match(line)
    if late and late["ticks"].startswith(opened.ticks):
        return True, late["code"] + "\n", False
    mark = re.match(r"^[ \t]*(`{3,}|~{3,})[ \t]*(.*)$", line)
    if not mark or not mark[1].startswith(opened.ticks):
        return False, "", False
    opens = (
        bool(re.fullmatch(r"\{?\.?\w[\w+#-]*(?:[ \t]*[{:=].*|[ \t]+\w+=.*)?", mark[2].strip())) and "`" not in mark[2]
    )
    return True, "", opens


def _in_one_line(line: str) -> str | None:
    """The modules of a block that opens and closes on one line."""
    found = _ONE_LINE.match(line)
    inside = found["inside"] if found else ""
    begun, ends = re.search(r"\bmodule\b", inside), list(re.finditer(r"\bendmodule\b", inside))
    return inside[begun.start() : ends[-1].end()] if begun and ends and begun.start() < ends[-1].start() else None


def fences(text: str) -> list[Fence]:
    """Every fenced block in order; the last may lack its end."""
    found: list[Fence] = []
    opened: _Opened | None = None
    at = 0
    for whole in text.splitlines(keepends=True):
        start, at = at, at + len(whole)
        line = whole.rstrip("\n")
        if opened is None:
            one_line = _in_one_line(line)
            if one_line is not None:
                found.append(Fence(one_line + "\n", False, start, at))
            else:
                opened = _opening(line, start)
            continue
        line = opened.line(line)
        closed, code, opens = _closes(line, opened)
        if not closed:
            opened.lines.append(line + "\n")
            continue
        body, end = "".join([*opened.lines, code]), start if opens else at
        found.append(Fence(body, opened.foreign, opened.start, end, closed=not code))
        opened = _opening(line, start) if opens else None
    if opened is not None:
        found.append(Fence("".join(opened.lines), opened.foreign, opened.start, len(text), closed=False))
    return found


def outside(text: str, found: list[Fence]) -> str:
    """The text without its fenced blocks."""
    edges = [0, *(edge for fence in found for edge in (fence.start, fence.end)), len(text)]
    return "\n".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
