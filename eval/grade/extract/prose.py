"""Code that stands in prose without a fence: the lines that are Verilog, from a module's header to its `endmodule`.

Read line by line, so that nothing a sentence says (an open comment, an odd quote, a line that begins with "module")
reaches the code after it.
"""

import re
from collections.abc import Iterator

from eval.grade.extract.verilog import TOP

_NAME = r"(?:\\\S+\s|[A-Za-z_][\w$]*|`\w+)"
_MODULE = re.compile(rf"[ \t]*(?:\(\*[^\n]*?\*\)[ \t]*)?(?:module|macromodule)\s+(?:automatic\s+|static\s+)?{_NAME}\s*")
_HEADER_SPACE = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/|`[^\n]*|import\s+[^;]*;)+", re.DOTALL)
_END = r"\b{0}\b(?:[ \t]*:[ \t]*\w+)?"
_QUIET = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_BLOCK = re.compile(
    r"[ \t]*(?P<kind>package|interface|primitive|class|function|task|checker|program|config)\s+"
    r"[^;\n]*?(?:;|\(|#)"
)
_STATEMENT = re.compile(
    r"[ \t]*(?:typedef\b[^;{\n]*(?:\{[^}]*\})?[^;\n]*;|import\s+\w+::[\w*]+(?:\s*,\s*\w+::[\w*]+)*\s*;"
    r"|(?:parameter|localparam)\b[^;\n]*=[^;]*;|(?:timeunit|timeprecision)\s+\d[^;\n]*;|bind\s+\w+[^;\n]*;)[^\n]*"
)
_DIRECTIVE = re.compile(
    r"[ \t]*`(?:define|undef|undefineall|include|ifn?def|elsif|else|endif|timescale|default_nettype|resetall"
    r"|(?:end)?celldefine|begin_keywords|end_keywords|line|pragma|(?:no)?unconnected_drive)\b(?:[^\n]*\\\n)*[^\n]*"
)
_COMMENT = re.compile(r"[ \t]*(?://[^\n]*|/\*.*?\*/[ \t]*(?=\n|\Z))", re.DOTALL)
_PAREN = re.compile(rf"{_QUIET.pattern}|[()]", re.DOTALL)
_LONGEST_HEADER = 1 << 13


def _header(text: str, start: int) -> int | None:
    """Where a module's header ends, its semicolon included; None where these words are no header."""
    begun = _MODULE.match(text, start)
    if not begun:
        return None
    at, last = begun.end(), min(len(text), begun.end() + _LONGEST_HEADER)
    while at < last:
        space = _HEADER_SPACE.match(text, at)
        at = space.end() if space else at
        sign = text[at : at + 1]
        if sign == ";":
            return at + 1
        if sign == "#":
            at += 1
        elif sign == "(":
            at = _closing(text, at, last)
        else:
            return None
    return None


def _closing(text: str, at: int, last: int) -> int:
    """Behind the parenthesis that closes the one at `at`, or `last`."""
    depth = 0
    for found in _PAREN.finditer(text, at, last):
        depth += (found.group() == "(") - (found.group() == ")")
        if depth == 0 and found.group() == ")":
            return found.end()
    return last


def _ended(text: str, at: int, word: str) -> int | None:
    """Where the first `word` outside comments and strings ends, from `at` on."""
    for found in re.compile(f"{_QUIET.pattern}|(?P<end>{_END.format(word)})", re.DOTALL).finditer(text, at):
        if found["end"]:
            return found.end()
    return None


def _item(text: str, at: int) -> int | None:
    """Where the piece of code that begins at the line's start `at` ends; None where the line is prose."""
    header = _header(text, at)
    if header is not None:
        return _ended(text, header, "endmodule") or len(text)
    block = _BLOCK.match(text, at)
    if block:
        return _ended(text, block.end(), f"end{block['kind']}")
    found = next((m for p in (_DIRECTIVE, _STATEMENT, _COMMENT) if (m := p.match(text, at))), None)
    return found.end() if found else None


def _lines(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        end, following = _item(text, at), text.find("\n", at) + 1 or len(text)
        if end is not None:
            yield text[at:end] + "\n"
            rest = text.find("\n", end) + 1 or len(text)
            following = rest if not re.match(r"[ \t]*(?:module|macromodule)\b", text[end:rest]) else end
        at = following


def code_in(text: str) -> str:
    """The text without its prose; from a line `module TopModule` on, where nothing in it reads as code."""
    code = "".join(_lines(text))
    if re.search(r"\b(?:macro)?module\b", code):
        return code
    raw = re.search(rf"^[ \t]*(?:macro)?module\s+\\?{TOP}\b", text, re.MULTILINE)
    return text[raw.start() :] if raw else ""
