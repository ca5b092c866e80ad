"""The words of a preprocessed text, and the text made of them again: what is judged is exactly what is simulated.

Comments go; each directive that the compiler reads stands alone on its line, or is dropped; what the next reader could
take otherwise (a number that runs into a word, an escaped name of more than letters, a stray backtick) is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["name", "system", "number", "string", "mark", "directive", "space"]
_UNIT = r"1(?:00?)?[ \t]*(?:[munpf]?s)"
_KEPT = re.compile(
    rf"`(?:timescale[ \t]+{_UNIT}[ \t]*/[ \t]*{_UNIT}|default_nettype[ \t]+(?:none|wire)|resetall"
    r"|(?:end)?celldefine|unconnected_drive[ \t]+pull[01]|nounconnected_drive"
    r'|begin_keywords[ \t]+"1(?:364-(?:1995|2001|2001-noconfig|2005)|800-(?:2005|2009|2012))"|end_keywords)'
    r"[ \t\r]*(?=\n|\Z|//)"
)
_DROPPED = re.compile(
    r"`(?:line|pragma|default_decay_time|default_trireg_strength|delay_mode_(?:distributed|path|unit|zero)"
    r"|(?:disable|enable)_portfaults|(?:no)?suppress_faults|(?:no)?expand_vectornets|(?:no)?accelerate"
    r"|(?:no)?remove_(?:gate|net)names)\b[^\n]*"
)
_TOKEN = re.compile(
    r"(?P<space>(?:[ \t\b\f\r\n]|//[^\n]*|/\*(?s:.*?)\*/)+)"
    r"|(?P<name>[A-Za-z_][\w$]*)"
    r"|(?P<escaped>\\[^ \t\b\f\r\n]+)"
    r"|(?P<system>\$[A-Za-z_][\w$]*)"
    r"|(?P<number>'[sS]?(?:[bB][ \t]*[01xXzZ?_]+|[oO][ \t]*[0-7xXzZ?_]+|[dD][ \t]*(?:[\d_]+|[xXzZ?]_*)"
    r"|[hH][ \t]*[\da-fA-FxXzZ?_]+)|'[01xXzZ](?![\w$])|[01][xXzZ](?![\w$])"
    r"|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d[\d_]*)?(?:[munpf]?s|step)?)"
    r'|(?P<string>"(?:\\[^\n]|[^"\\\n])*")'
    r"|(?P<mark>[!#%&()*+,\-./:;<=>?@\[\]^{|}~$']|`)",
    re.ASCII,
)
_PLAIN = re.compile(r"\\[A-Za-z_]\w*", re.ASCII)
_WORD = re.compile(r"[\w$\\`]", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Unreadable(ValueError):
    """A text that two readers could take in two ways; says where and what."""


@dataclass(frozen=True)
class Token:
    """One word as it is written; `space` holds at least one blank, and the line feeds between two words."""

    kind: Kind
    text: str

    @property
    def name(self) -> str:
        return self.text.strip().removeprefix("\\")


def _space(text: str) -> Token:
    return Token("space", "\n" * text.count("\n") or " ")


def _directive(text: str, start: int) -> tuple[Token, int]:
    line = text[text.rfind("\n", 0, start) + 1 : start]
    kept, dropped = _KEPT.match(text, start), _DROPPED.match(text, start)
    found = kept or dropped
    if found is None or line.strip():
        written = re.match(r"`\s?\w*", text[start:])
        raise Unreadable(f"the directive {written.group() if written else '`'}")
    return (Token("directive", kept.group().strip()) if kept else _space(" ")), found.end()


def _string(text: str) -> str:
    if _CONTROL.search(text.replace("\t", " ")):
        raise Unreadable("a control character in a string")
    return re.sub(r"\\([^`])|\\?`", lambda m: m.group() if m.group(1) else "\\140", text)


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    while at < len(text):
        if text[at] == "`":
            token, at = _directive(text, at)
            yield token
            continue
        found = _TOKEN.match(text, at)
        if found is None or (found.lastgroup == "mark" and text.startswith("/*", at)):
            raise Unreadable(_strange(text, at))
        at, kind, written = found.end(), found.lastgroup, found.group()
        if kind == "space":
            yield _space(written)
        elif kind == "escaped":
            if not _PLAIN.fullmatch(written):
                raise Unreadable(f"the escaped name {written[:40]}")
            yield Token("name", written + " ")
        elif kind == "string":
            yield Token("string", _string(written))
        else:
            if (kind == "number" or written == "$") and _WORD.match(text, at):
                raise Unreadable(f"a number or sign that runs into a word: {text[found.start() : at + 20]!r}")
            yield Token(kind, written)  # type: ignore[arg-type]


def _strange(text: str, at: int) -> str:
    if text[at] == '"':
        return "a string without an end on its line"
    return "a comment without an end" if text.startswith("/*", at) else f"a character that is no Verilog: {text[at]!r}"


def tokens(text: str) -> list[Token]:
    """The words of a text in which no macro is left. Unreadable where they are not certain."""
    return list(_tokens(text))


def joined(words: list[Token]) -> str:
    """The text of these words: no comment, no macro, directives alone on their lines."""
    return "".join(word.text for word in words)
