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
_NETS = "none|wire|tri[01]?|triand|trior|trireg|wand|wor|uwire"
_KEPT = re.compile(
    rf"`(?:timescale[ \t]+{_UNIT}[ \t]*/[ \t]*{_UNIT}|default_nettype[ \t]+(?:{_NETS})|resetall"
    r"|(?:end)?celldefine|unconnected_drive[ \t]+pull[01]|nounconnected_drive"
    r'|begin_keywords[ \t]+"(?P<keywords>1(?:364|800)-[\w-]+)"|end_keywords)(?!\w)',
    re.ASCII,
)
_DROPPED = re.compile(
    r"`(?:(?:line|pragma|default_decay_time|default_trireg_strength)\b[^\n]*|(?:delay_mode_(?:distributed|path|unit|zero)"
    r"|(?:disable|enable)_portfaults|(?:no)?suppress_faults|(?:no)?expand_vectornets|(?:no)?accelerate"
    r"|(?:no)?remove_(?:gate|net)names)\b)",
    re.ASCII,
)
_SINCE_2001 = frozenset({"config", "library"})
_SINCE_2005 = frozenset({"alias", "bind", "export", "program"})
_PLAIN_WORDS = {
    "1364-1995": _SINCE_2001 | _SINCE_2005,
    "1364-2001-noconfig": _SINCE_2001 | _SINCE_2005,
    "1364-2001": _SINCE_2005,
    "1364-2005": _SINCE_2005,
}
"""By an older version of the language: keywords of today, which are names in it."""
_TOKEN = re.compile(
    r"(?P<space>(?:[ \t\b\f\r\n]|//[^\n]*|/\*(?s:.*?)\*/)+)"
    r"|(?P<name>[A-Za-z_][\w$]*)"
    r"|(?P<escaped>\\[^ \t\b\f\r\n]+)"
    r"|(?P<system>\$[A-Za-z_][\w$]*)"
    r"|(?P<number>'[sS]?(?:[bB][ \t]*[01xXzZ?_]+|[oO][ \t]*[0-7xXzZ?_]+|[dD][ \t]*(?:[\d_]+|[xXzZ?]_*)"
    r"|[hH][ \t]*[\da-fA-FxXzZ?_]+)|'[01xXzZ](?![\w$])|[01][xXzZ](?![\w$])"
    r"|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d[\d_]*)?(?:[munpf]?s|step)?)"
    r'|(?P<string>"(?:\\(?:\r?\n|[^\n])|[^"\\\n])*")'
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


def _directive(text: str, start: int) -> tuple[re.Match[str], bool]:
    """What the text says from `start` on, and whether it is kept."""
    kept, dropped = _KEPT.match(text, start), _DROPPED.match(text, start)
    found = kept or dropped
    if found is None:
        written = re.match(r"`\s?\w*", text[start:])
        raise Unreadable(f"the directive {written.group() if written else '`'}")
    return found, kept is not None


def _string(text: str) -> str:
    text = re.sub(r"\\\r?\n", "", text)
    if _CONTROL.search(text.replace("\t", " ")):
        raise Unreadable("a control character in a string")
    return re.sub(r"\\([^`])|\\?`", lambda m: m.group() if m.group(1) else "\\140", text)


class _Names:
    """Names as they are written: escaped where an older keyword list says so, plain words for what else is escaped."""

    def __init__(self, text: str) -> None:
        self.keywords, self.given = list[str](), dict[str, str]()
        self.stem = "escaped"
        while self.stem in text:
            self.stem += "_"

    def directive(self, found: re.Match[str]) -> None:
        if found["keywords"]:
            self.keywords.append(found["keywords"])
        elif found.group() == "`end_keywords" and self.keywords:
            self.keywords.pop()

    def plain(self, name: str) -> str:
        free = self.keywords and name in _PLAIN_WORDS.get(self.keywords[-1], ())
        return f"\\{name} " if free else name

    def escaped(self, written: str) -> str:
        return written if _PLAIN.fullmatch(written) else self.given.setdefault(written, f"{self.stem}{len(self.given)}")


def _tokens(text: str) -> Iterator[Token]:
    at, names = 0, _Names(text)
    while at < len(text):
        if text[at] == "`":
            directive, kept = _directive(text, at)
            at = directive.end()
            if kept:
                names.directive(directive)
            yield Token("directive", directive.group()) if kept else _space(" ")
            continue
        found = _TOKEN.match(text, at)
        if found is None or (found.lastgroup == "mark" and text.startswith("/*", at)):
            raise Unreadable(_strange(text, at))
        at, kind, written = found.end(), found.lastgroup, found.group()
        if kind == "space":
            yield _space(written)
        elif kind == "escaped":
            yield Token("name", names.escaped(written))
        elif kind == "string":
            yield Token("string", _string(written))
        elif kind == "name":
            yield Token("name", names.plain(written))
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
    said, feeds, alone = list[str](), -1, False
    for word in words:
        if word.kind == "space":
            feeds = max(feeds, 0) + word.text.count("\n")
            continue
        alone = bool(said) and (alone or word.kind == "directive")
        said += [_gap(max(feeds, 1) if alone else feeds), word.text]
        feeds, alone = -1, word.kind == "directive"
    return "".join([*said, _gap(feeds)])


def _gap(feeds: int) -> str:
    """Space of as many line feeds, of one blank for 0; none for less."""
    return "\n" * feeds if feeds else " "
