"""What extraction must know of Verilog: where modules stand in a text, which have a body, which TopModule reaches.

A few words of the language, read with regular expressions: whether a text is right is the simulator's to say. In doubt
nothing is left out.
"""

import re
from dataclasses import dataclass

TOP = "TopModule"

COMMENT = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
QUIET = rf'{COMMENT}|"[^"\\\n]*+(?:\\.[^"\\\n]*+){{0,200}}+"'
"""Comments and strings, with DOTALL. Nothing here looks further than it may, or twice: a text may be hostile."""
_QUIET = re.compile(QUIET, re.DOTALL)
_BEGUN = r"\b(?:module|macromodule)\s+(?:automatic\s+|static\s+)?"
_TOP = re.compile(rf"{_BEGUN}(?:\\{TOP}(?=\s)|{TOP}\b)")
_TOP_BY_MACRO = re.compile(rf"^[ \t]*`define[ \t]+\w+[ \t]+{TOP}\b", re.MULTILINE)
_WORD = re.compile(rf"(?P<begun>{_BEGUN}(?P<name>\\\S+|\w+)?)|(?P<end>\bendmodule\b(?:[ \t]*:[ \t]*\w+)?)")
_CONDITIONAL = re.compile(r"^[ \t]*`(?:ifn?def|elsif|else)\b", re.MULTILINE)
_KEPT_DIRECTIVE = re.compile(
    r"^[ \t]*`(?:define|undef|ifn?def|elsif|else|endif|timescale|default_nettype|resetall|(?:end)?celldefine)\b"
    r"(?:[^\n]*\\\n)*[^\n]*\n?",
    re.MULTILINE,
)
_DECLARATION = re.compile(
    r"\b(?:input|output|inout|wire|tri|reg|logic|bit|integer|int|genvar|time|real)\b[^;=]{0,4000}+;"
    r"|\b(?:parameter|localparam)\b[^;]{0,4000}+;|\btypedef\b[^;{]{0,4000}+(?:\{[^}]{0,4000}+\})?[^;]{0,4000}+;"
)
_EMPTY_BLOCK = re.compile(
    r"\b(?:always\w*|initial|final)\s*+(?:@\s*+(?:\([^)]{0,4000}+\)|\*)\s*+)?(?:begin\s*+(?::\s*\w+\s*+)?end\b|;)"
    r"|\bgenerate\s*endgenerate\b"
)

_MACRO = re.compile(r"^[ \t]*`define\b(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
_INSTANCE = re.compile(r"(?<![\w$.`])\\?(\w++)\s*+(?=#|\(|\\?[A-Za-z_`])")


def without_comments(text: str) -> str:
    """The text with comments and strings blanked, every character that remains at its place."""
    return _QUIET.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def defines(text: str) -> bool:
    """Whether `text` defines TopModule, outside comments and strings."""
    plain = without_comments(text)
    return bool(_TOP.search(plain) or ("module" in plain and _TOP_BY_MACRO.search(plain)))


def instantiated(plain: str) -> set[str]:
    """The names of what may be instantiated in `plain` (which has no comments), and every word that a macro holds."""
    held = "\n".join(_MACRO.findall(plain))
    return set(_INSTANCE.findall(plain)) | set(re.findall(r"\w+", held))


@dataclass(frozen=True)
class Module:
    """One module of a text: its name, where it stands, whether its `endmodule` is there and something before it."""

    name: str
    start: int
    end: int
    closed: bool
    has_body: bool


def _has_body(plain: str) -> bool:
    """Whether a module does anything: more than ports, declarations, empty blocks or an ellipsis."""
    header, _, body = plain.partition(";")
    if "..." in body or not header:
        return False
    rest = _EMPTY_BLOCK.sub(" ", _DECLARATION.sub(" ", body.removesuffix("endmodule")))
    rest = re.sub(r"^[ \t]*`[^\n]*|\bendmodule\b(?:\s*:\s*\w+)?|\bbegin\b|\bend\b|;", " ", rest, flags=re.MULTILINE)
    return bool(rest.strip())


def modules(text: str) -> list[Module]:
    """The outermost modules of a text, in order; one without its `endmodule` reaches to the end of the text."""
    plain, found, opened, depth = without_comments(text), [], None, 0
    words = list(_WORD.finditer(plain))
    nested = sum(bool(w["begun"]) for w in words) == sum(bool(w["end"]) for w in words)
    for word in words:
        if word["begun"]:
            if opened is None:
                opened, depth = word, 0
            depth += 1
        elif opened is not None:
            depth -= 1
            if depth == 0 or not nested:
                found.append(_module(plain, opened, word.end(), closed=True))
                opened = None
    if opened is not None:
        found.append(_module(plain, opened, len(text), closed=False))
    return found


def _module(plain: str, opened: re.Match[str], end: int, closed: bool) -> Module:
    name = (opened["name"] or "").removeprefix("\\")
    body = plain[opened.end() : end]
    return Module(name, opened.start(), end, closed, closed and _has_body(body))


def reached(text: str) -> str:
    """`text` without the modules that TopModule cannot reach, and of several TopModules the last that has a body.

    Directives of a module that is left out stay. With conditional compilation each TopModule stays; where macros paste
    names together, or define TopModule's, everything does.
    """
    plain, all_of = without_comments(text), modules(text)
    tops = [m for m in all_of if m.name == TOP]
    if not tops or "``" in plain or any(not m.name for m in all_of):
        return text
    top = best(tops)
    kept = set(tops) if _CONDITIONAL.search(plain) else {top}
    others: dict[str, list[Module]] = {}
    for module in all_of:
        if module.name != TOP:
            others.setdefault(module.name, []).append(module)
    names = instantiated("".join(plain[a:b] for a, b in _gaps(all_of, len(text))))
    names |= set().union(*(instantiated(plain[m.start : m.end]) for m in kept))
    while names:
        found = others.pop(names.pop(), [])
        kept |= set(found)
        names |= set().union(*(instantiated(plain[m.start : m.end]) for m in found))
    said, at = [], 0
    for module in all_of:
        if module not in kept:
            left = "".join(_KEPT_DIRECTIVE.findall(text[module.start : module.end]))
            said += [text[at : module.start], "\n" + left if left else ""]
            at = module.end
    return "".join([*said, text[at:]])


def best(tops: list[Module]) -> Module:
    """The last that has a body, else the last that is whole, else the last."""
    return max(tops, key=lambda m: (m.has_body, m.closed, m.start))


def _gaps(found: list[Module], length: int) -> list[tuple[int, int]]:
    edges = [0, *(edge for m in found for edge in (m.start, m.end)), length]
    return list(zip(edges[::2], edges[1::2], strict=True))


def first_end(text: str) -> int | None:
    """Where the first `endmodule` ends, if no module begins before it: the text continues a given header."""
    for word in _WORD.finditer(without_comments(text)):
        return None if word["begun"] else word.end()
    return None
