"""An answer without the thought before it: <think>...</think> and the tags of the answer. Tags in code are code."""

import re
from collections.abc import Iterator

from data.formats.example import Dropped

_FENCE = re.compile(r"```(?:systemverilog|verilog|sv|v)[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_COMMENT = re.compile(r"(?<!:)//|/\*")
OPEN, CLOSE = "<think>", "</think>"
_BARE = re.compile(r"</think>(?=[ \t]*(?:\n|\Z))|(?<=\n)</think>|\A</think>|</think>(?=\s*<answer>)")
"""The end of a thought that the prompt began; within a line it is spoken of."""


def fences(text: str) -> Iterator[str]:
    """What stands inside each Verilog fence."""
    yield from (found[1] for found in _FENCE.finditer(text))


def first_code(answer: str) -> str:
    """The first Verilog fence of an answer, fence and all."""
    found = _FENCE.search(answer)
    if found is None:
        raise Dropped("no Verilog fence")
    return found[0]


def _outside(text: str, tag: str) -> Iterator[int]:
    """Where a tag stands that is no part of code: not in a fence, not in a comment or a literal."""
    at = text.find(tag)
    code = [found.span() for found in _CODE.finditer(text)] if at >= 0 else []
    while at >= 0:
        line = text[text.rfind("\n", 0, at) + 1 : at]
        written = line.count('"') % 2 or _COMMENT.search(line)
        if not written and not any(start <= at < end for start, end in code):
            yield at
        at = text.find(tag, at + 1)


def _first(text: str, tag: str) -> int:
    return next(_outside(text, tag), -1)


def _bare(text: str) -> int:
    """Where a thought ends that nothing here begins."""
    return next((at for at in _outside(text, CLOSE) if _BARE.match(text, at)), -1)


def after_thought(response: str) -> str:
    """What follows the reasoning, and all thoughts in between left out; Dropped where one does not end."""
    rest = response
    if rest.lstrip().startswith(OPEN):
        at = _first(rest, CLOSE)
        at = rest.find(CLOSE) if at < 0 else at
        if at < 0:
            raise Dropped("cut off")
        rest = rest[at + len(CLOSE) :]
    elif (at := _bare(rest)) >= 0 and not 0 <= _first(rest, OPEN) < at:
        rest = rest[at + len(CLOSE) :]
    while (start := _first(rest, OPEN)) >= 0:
        end = rest.find(CLOSE, start)
        if end < 0:
            raise Dropped("cut off")
        rest = rest[:start] + rest[end + len(CLOSE) :]
    return rest


def final_answer(response: str) -> str:
    """What stands in <answer>...</answer> after the reasoning; without the tags, all that follows the reasoning."""
    after = after_thought(response) if "think>" in response else response
    opened = _first(after, "<answer>")
    if opened < 0:
        return after.strip()
    inside, closed, _ = after[opened + len("<answer>") :].rpartition("</answer>")
    if not closed:
        raise Dropped("cut off")
    return inside.strip()


def without_reasoning(answer: str) -> str:
    """The same where there was a thought; what has none stays as it is."""
    if "think>" not in answer:
        return answer
    after = after_thought(answer)
    return answer if after == answer else final_answer(answer)
