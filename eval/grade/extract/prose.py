"""Code that stands in prose without a fence: the lines that are Verilog, from a module's header to its `endmodule`.

Read line by line, so that nothing a sentence says (an open comment, an odd quote, a line that begins with "module")
reaches the code after it. In time that grows with the text's length alone: whatever is searched for is searched once.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator

from eval.grade.extract.verilog import COMMENT, QUIET, TOP

_NAME = r"(?:\\\S+\s|[A-Za-z_][\w$]*|`\w+)"
_GAP = r"(?:\s|//[^\n]*+\n|/\*[^*\n]{0,200}+\*/)++"
_MODULE = re.compile(
    rf"[ \t]*(?:\(\*[^\n]*?\*\)[ \t]*)?(?:module|macromodule){_GAP}(?:automatic\s+|static\s+)?{_NAME}\s*"
)
_HEADER_SPACE = re.compile(rf"(?:\s+|{COMMENT}|`[^\n]*|import\s+[^;]*;)+", re.DOTALL)
_ENDED = rf"{QUIET}|(?P<end>\bWORD\b(?:[ \t]*:[ \t]*\w+)?)|(?P<begun>\b(?:macro)?module\b)"
_BLOCK = re.compile(
    r"[ \t]*(?P<kind>package|interface|primitive|class|function|task|checker|program|config)\s+"
    r"[^;\n]*?(?:;|\(|#)"
)
_STATEMENT = re.compile(
    r"[ \t]*(?:typedef\b[^;{\n]*+(?:\{[^}]{0,8000}+\})?[^;\n]*;"
    r"|import\s+\w+::[\w*]+(?:\s*,\s*\w+::[\w*]+)*\s*;"
    r"|(?:parameter|localparam)\b[^;=\n]*=[^;]{0,8000}+;|(?:timeunit|timeprecision)\s+\d[^;\n]*;|bind\s+\w+[^;\n]*;)"
    r"[^\n]*"
)
_DIRECTIVE = re.compile(
    r"[ \t]*`(?:define|undef|undefineall|include|ifn?def|elsif|else|endif|timescale|default_nettype|resetall"
    r"|(?:end)?celldefine|begin_keywords|end_keywords|line|pragma|(?:no)?unconnected_drive)\b(?:[^\n]*\\\n)*[^\n]*"
)
_MACRO = re.compile(r"[ \t]*`(?P<use>\w+)[^\n]*")
_COMMENT = re.compile(r"[ \t]*(?://[^\n]*|(?P<long>/\*))")
_REST_OF_LINE = re.compile(r"[ \t]*(?=\n|\Z)")
_IN_PORTS = re.compile(rf"{QUIET}|(?P<sign>[()])|(?P<stop>;|\b(?:macro)?module\b)", re.DOTALL)
_LONGEST_HEADER = 1 << 13


def _header(text: str, start: int) -> int | None:
    """Where a module's header ends, its semicolon included; None where these words are no header."""
    begun = _MODULE.match(text, start)
    if not begun:
        return None
    at, last = begun.end(), min(len(text), begun.end() + _LONGEST_HEADER)
    while at < last:
        space = _HEADER_SPACE.match(text, at, last)
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
    """Behind the parenthesis that closes the one at `at`, or `last` where a list of ports does not go on so."""
    depth = 0
    for found in _IN_PORTS.finditer(text, at, last):
        if found["stop"]:
            return last
        depth += {"(": 1, ")": -1}.get(found["sign"], 0)
        if depth == 0 and found["sign"]:
            return found.end()
    return last


class _Reader:
    """Reads one text; remembers what it looked for in vain."""

    def __init__(self, text: str):
        self.text = text
        self.absent: dict[str, int] = {}
        self.macros = set(re.findall(r"^[ \t]*`define[ \t]+(\w+)", text, re.MULTILINE))
        self.closed = [found.end() for found in re.finditer(r"\*/", text)]

    def _ended(self, at: int, word: str) -> int | None:
        """Where the first `word` outside comments and strings ends, from `at` on; but a module begins in no block."""
        if at < self.absent.get(word, 0):
            return None
        for found in re.compile(_ENDED.replace("WORD", word), re.DOTALL).finditer(self.text, at):
            if found["end"]:
                return found.end()
            if found["begun"] and word != "endmodule":
                self.absent[word] = found.start()
                return None
        self.absent[word] = len(self.text) + 1
        return None

    def _comment(self, at: int) -> int | None:
        """Where the comment ends that begins at the line's start `at`, and has its last line for itself."""
        begun = _COMMENT.match(self.text, at)
        if begun is None or not begun["long"]:
            return begun and begun.end()
        place = bisect_left(self.closed, begun.end() + 2)
        rest = _REST_OF_LINE.match(self.text, self.closed[place]) if place < len(self.closed) else None
        return rest and rest.end()

    def _item(self, at: int) -> int | None:
        """Where the piece of code that begins at the line's start `at` ends; None where the line is prose."""
        header = _header(self.text, at)
        if header is not None:
            return self._ended(header, "endmodule") or len(self.text)
        block = _BLOCK.match(self.text, at)
        if block:
            return self._ended(block.end(), f"end{block['kind']}")
        found = _DIRECTIVE.match(self.text, at) or _STATEMENT.match(self.text, at)
        used = None if found else _MACRO.match(self.text, at)
        if used and used["use"] in self.macros:
            found = used
        return found.end() if found else self._comment(at)

    def lines(self) -> Iterator[str]:
        text, at = self.text, 0
        while at < len(text):
            end, following = self._item(at), text.find("\n", at) + 1 or len(text)
            if end is not None:
                yield text[at:end] + "\n"
                rest = text.find("\n", end) + 1 or len(text)
                following = rest if not re.match(r"[ \t]*(?:module|macromodule)\b", text[end:rest]) else end
            at = following


def code_in(text: str) -> str:
    """The text without its prose; from a line `module TopModule` on, where nothing in it reads as code."""
    code = "".join(_Reader(text).lines())
    if re.search(r"\b(?:macro)?module\b", code):
        return code
    raw = re.search(rf"^[ \t]*(?:macro)?module\s+\\?{TOP}\b", text, re.MULTILINE)
    return text[raw.start() :] if raw else ""
