"""Admission: a design may define itself and its helpers, and touch nothing else; judged on every word before it runs.

Words that act on the simulation as a whole (printing, ending, dumping) are replaced by ones that do nothing, with
arguments that must still make sense; what could reach out of the design is refused. The barriers behind this are the
sandbox, the harness's names that no design can know, and its record of what was compared.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from eval.grade.extract import TOP
from eval.grade.tokens import Token, Unreadable, joined, tokens

_TWO_WAYS = frozenset({"tran", "tranif0", "tranif1", "rtran", "rtranif0", "rtranif1", "alias", "inout"})
_OUTWARD = frozenset({"force", "release", "bind", "config", "library", "program"})
_BARRED = _TWO_WAYS | _OUTWARD
_RESERVED = frozenset({"tb", "RefModule", "stimulus_gen"})
_PURE = re.compile(
    r"(info|warning|error|swrite[bho]?|sformatf?|signed|unsigned|clog2|bits|size|high|low|left|right|increment"
    r"|(unpacked_)?dimensions|typename|cast|countones|countbits|onehot0?|isunknown|isunbounded|time|realtime|stime"
    r"|u?random|urandom_range|rtoi|itor|(short)?realtobits|bitsto(short)?real|ln|log10|exp|sqrt|pow|floor|ceil|abs|min|max"
    r"|a?(sin|cos|tan)h?|atan2|hypot|past|rose|fell|stable|changed|sampled|setup|hold|setuphold|recovery|removal|recrem"
    r"|skew|width|period|nochange|sscanf|dist_\w+)"
)
_SILENCED = re.compile(r"f?(display|write|strobe|monitor)[bho]?|finish|stop|exit")
_DISCARDED = re.compile(
    r"dump(file|vars|on|off|all|flush|limit)|monitor(on|off)|timeformat|printtimescale|(read|write)mem[bh]"
    r"|fclose|fflush|assert(on|off|kill)"
)
_ABSENT = re.compile(r"(value|test)\$plusargs")
_IMPLICIT = re.compile(r"genblk\d+|this|super")
_NOTHING = "$fdisplay(0"
"""Writes to no channel at all: evaluates its arguments, and does nothing."""


_LONG = r"1(?:00?)?\s*[munpf]?s"
_TIMEUNIT = re.compile(
    r"(?P<head>(?:\s|`[^\n]*+\n)*+)"
    rf"(?:timeunit\s*(?P<unit>{_LONG})\s*(?:/\s*(?P<precision>{_LONG})\s*)?;(?:\s*timeprecision\s*(?P<after>{_LONG})\s*;)?"
    rf"|timeprecision\s*(?P<before>{_LONG})\s*;\s*timeunit\s*(?P<unit2>{_LONG})\s*;)"
)


class Refused(ValueError):
    """Why a design must not be run."""


def _close(words: list[Token], at: int) -> int:
    """The place of the `)` for the `(` at `at`, or the end."""
    depth = 0
    for i in range(at, len(words)):
        depth += {"(": 1, ")": -1}.get(words[i].text, 0)
        if not depth:
            return i
    return len(words) - 1


def _after(words: list[Token], at: int) -> int | None:
    """The place of the next word that is no space."""
    return next((i for i in range(at + 1, min(at + 3, len(words))) if words[i].kind != "space"), None)


def _own_unit(words: list[Token], at: int) -> bool:
    """Whether `$unit::` stands there: what the harness declares outside of modules has names that nobody knows."""
    follows = _after(words, at)
    return words[at].text == "$unit" and follows is not None and words[follows].text == ":"


def _silent(words: list[Token]) -> Iterator[Token]:
    """The same words without what acts on the whole simulation; Refused at a system name that may do more."""
    at = 0
    while at < len(words):
        word, name = words[at], words[at].text[1:]
        if word.kind != "system" or _PURE.fullmatch(name) or _own_unit(words, at):
            yield word
            at += 1
            continue
        follows = _after(words, at)
        opened = follows if follows is not None and words[follows].text == "(" else None
        if name == "fatal":
            yield Token("system", "$error")
            at += 1
        elif _SILENCED.fullmatch(name):
            empty = opened is None or words[_after(words, opened) or opened].text == ")"
            yield Token("system", _NOTHING + (")" if opened is None else "" if empty else ", "))
            at = (at if opened is None else opened) + 1
        elif _DISCARDED.fullmatch(name) or _ABSENT.fullmatch(name):
            end = at if opened is None else _close(words, opened)
            lines = sum(each.text.count("\n") for each in words[at : end + 1] if each.kind == "space")
            yield Token("system", "0" if _ABSENT.fullmatch(name) else _NOTHING + ")")
            yield Token("space", "\n" * lines or " ")
            at = end + 1
        else:
            raise Refused(f"the system task or scope {word.text}")


def _judge(words: list[Token]) -> None:
    """Refused at a barred keyword, at a definition that is the testbench's, at a name that leads out of the design."""
    spoken = [word for word in words if word.kind != "space"]
    closed = _closed(spoken)
    declared, begun = set(), {}
    for i, word in enumerate(spoken):
        before = spoken[i - 1].text if i else ""
        if word.kind != "name":
            continue
        if word.text in _BARRED:
            raise Refused(f"the keyword {word.text}")
        name = word.name
        if before in ("module", "macromodule", "interface", "package") and name in _RESERVED:
            raise Refused(f"a definition of {name}, which belongs to the testbench")
        if before == "disable":
            begun.setdefault(name, f"disable {name}")
        elif before != ".":
            end = i + 1
            while end in closed:
                end = closed[end] + 1
            if end + 1 < len(spoken) and spoken[end].text == "." and spoken[end + 1].kind == "name":
                begun.setdefault(name, f"{name}.{spoken[end + 1].name}")
            else:
                declared.add(name)
    for first, second in pairwise(spoken):
        if first.text in ("import", "export") and second.kind == "string":
            raise Refused(f"a DPI {first.text}")
    for name, text in begun.items():
        if name not in declared and name != TOP and not _IMPLICIT.fullmatch(name):
            raise Refused(f"a reference out of the design: {text}")


def _timed(text: str) -> str:
    """The text with `timeunit` before its first module as the directive that does the same, which iverilog takes even
    where another text comes first."""
    found = _TIMEUNIT.match(text)
    if not found:
        return text
    unit, precision = found["unit"] or found["unit2"], found["precision"] or found["after"] or found["before"]
    return f"{found['head']}\n`timescale {unit}/{precision or unit}\n{text[found.end() :]}"


def _closed(words: list[Token]) -> dict[int, int]:
    """The place of each `[` that is closed, and of its `]`."""
    opened, found = list[int](), dict[int, int]()
    for i, word in enumerate(words):
        if word.text == "[":
            opened.append(i)
        elif word.text == "]" and opened:
            found[opened.pop()] = i
    return found


def admit(preprocessed: str) -> str:
    """The text to simulate, made of the words of a preprocessed design. Raises Refused with the reason."""
    try:
        words = tokens(preprocessed)
        _judge(words)
        return _timed(joined(list(_silent(words))))
    except Unreadable as unreadable:
        raise Refused(str(unreadable)) from None
