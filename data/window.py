"""Rows that are too long, cut where nothing is lost: a conversation between whole turns, a document between modules.

A window of a conversation begins with its system turns. Every answer that is supervised is so in one window: with
`last_turn` that is the one window that ends with the last answer and holds as much before it as there is room for.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from data.formats.example import Example
from models.text.template import Message

_COMMENT = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_CUT = re.compile(rf"\b(?:macro)?module\b|\bendmodule\b(?:[ \t]*:[ \t]*\w+)?[ \t]*\n?|\n[ \t]*\n|{_COMMENT}", re.DOTALL)
Size = Callable[[Example], int]


def _blocks(text: str) -> list[str]:
    """A document in pieces that may stand in different rows: cut after a module, and at empty lines outside of one."""
    found, start, within = [], 0, False
    for mark in _CUT.finditer(text):
        word = mark[0].lstrip()
        if word.startswith(("//", "/*")):
            continue
        if word.startswith(("module", "macromodule")):
            within = True
        elif not within or word.startswith("endmodule"):
            found.append(text[start : mark.end()])
            start, within = mark.end(), False
    return [block for block in [*found, text[start:]] if block.strip()]


def _exchanges(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system turns at the start, then the turns up to each answer; a call stays with its replies."""
    head = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    found: list[list[Message]] = [[]]
    for i, message in enumerate(messages[head:], head + 1):
        found[-1].append(message)
        replies = i < len(messages) and messages[i]["role"] == "tool"
        if message["role"] == "assistant" and not replies:
            found.append([])
    return list(messages[:head]), [turns for turns in found if any(one["role"] == "assistant" for one in turns)]


def parts_of(example: Example) -> list[Example]:
    """The smallest pieces a row can be cut into."""
    if not example.messages:
        return [replace(example, text=block) for block in _blocks(example.text)]
    system, exchanges = _exchanges(example.messages)
    return [replace(example, messages=(*system, *turns)) for turns in exchanges]


def _joined(parts: Sequence[Example]) -> Example:
    if not parts[0].messages:
        return replace(parts[0], text="".join(part.text for part in parts))
    head = next((i for i, one in enumerate(parts[0].messages) if one["role"] != "system"), 0)
    more = [message for part in parts[1:] for message in part.messages[head:]]
    return replace(parts[0], messages=(*parts[0].messages, *more))


def windows(
    example: Example, room: int, size: Size, last_only: bool, too_long: Callable[[Example], None] = lambda _: None
) -> Iterator[Example]:
    """Rows of at most `room` tokens; pieces that are longer by themselves are left out, and told to `too_long`."""
    parts = parts_of(example)
    if last_only and example.messages:
        first = len(parts)
        while first and size(_joined(parts[first - 1 :])) <= room:
            first -= 1
        if first < len(parts):
            yield _joined(parts[first:])
        return
    start = 0
    while start < len(parts):
        stop, fits = start + 1, size(parts[start]) <= room
        while fits and stop < len(parts) and size(_joined(parts[start : stop + 1])) <= room:
            stop += 1
        if fits:
            yield _joined(parts[start:stop])
        else:
            too_long(parts[start])
        start = stop
