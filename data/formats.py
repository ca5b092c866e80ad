"""Row -> example: a conversation, or a plain document. What a row must hold, and what of it is kept.

`Dropped` is a row that is left out and counted under its reason; a row that breaks its format is a UserError.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data.sources.json_rows import BadRow, column
from models.text.prompt import Message

ROLES = ("system", "user", "assistant")


class Dropped(Exception):
    """Leave the row out; the first argument is the reason it is counted under."""


@dataclass(frozen=True)
class Example:
    """One row, cleaned: `messages` of a conversation or `text` of a document; `group` keeps to one side of a split.

    `unfolded` are the messages before system turns were folded away, where they were.
    """

    where: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    group: str = ""
    unfolded: tuple[Message, ...] = ()

    @property
    def content(self) -> str:
        """All that is said, in its order."""
        return self.text or "\n".join(message["content"] for message in self.messages)

    @cached_property
    def digest(self) -> bytes:
        """Of the content alone, the same wherever the row stands."""
        total = hashlib.blake2b(digest_size=16)
        try:
            for part in (self.text, *(part for m in self.messages for part in (m["role"], m["content"]))):
                encoded = part.encode()
                total.update(len(encoded).to_bytes(8, "little") + encoded)
        except UnicodeEncodeError:
            raise BadRow("half of a surrogate pair in the text", where=self.where, fix="mend the row") from None
        return total.digest()


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n") if "\r" in text else text


def final_answer(response: str) -> str:
    """What stands in <answer>...</answer> after the reasoning; without the tags, all that follows the reasoning."""
    if "<think>" in response and "</think>" not in response:
        raise Dropped("cut off")
    after = response.rpartition("</think>")[2]
    _, opened, inside = after.partition("<answer>")
    if not opened:
        return after.strip()
    inside, closed, _ = inside.rpartition("</answer>")
    if not closed:
        raise Dropped("cut off")
    return inside.strip()


_FENCE = re.compile(r"```(?:systemverilog|verilog|sv|v)[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


def fences(text: str) -> Iterator[str]:
    """What stands inside each Verilog fence."""
    yield from (found[1] for found in _FENCE.finditer(text))


def first_code(answer: str) -> str:
    """The first Verilog fence of an answer, fence and all."""
    found = _FENCE.search(answer)
    if found is None:
        raise Dropped("no Verilog fence")
    return found[0]


def _without_reasoning(answer: str, strip_reasoning: bool) -> str:
    return final_answer(answer) if strip_reasoning and "</think>" in answer else answer


def _exchange(where: str, prompt: str, answer: str) -> Example:
    return Example(where, ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}))


def _codev_r1(row: dict[str, Any], where: str, strip_reasoning: bool) -> Example:
    response = _lines(column(row, "response", str, where))
    answer = final_answer(response) if strip_reasoning else response
    return _exchange(where, _lines(column(row, "prompt", str, where)), answer)


def _prompt_completion(row: dict[str, Any], where: str, strip_reasoning: bool) -> Example:
    answer = _without_reasoning(_lines(column(row, "completion", str, where)), strip_reasoning)
    return _exchange(where, _lines(column(row, "prompt", str, where)), answer)


def _messages(row: dict[str, Any], where: str, strip_reasoning: bool) -> Example:
    found: list[Message] = []
    for i, message in enumerate(column(row, "messages", list, where)):
        if not isinstance(message, dict):
            raise BadRow(f"messages[{i}] must be an object with role and content", where=where, fix="mend the row")
        role = column(message, "role", str, where)
        if role not in ROLES:
            raise BadRow(f"messages[{i}] has the role {role!r}", where=where, fix=f"use one of {', '.join(ROLES)}")
        content = _lines(column(message, "content", str, where))
        if role == "assistant":
            content = _without_reasoning(content, strip_reasoning)
        found.append({"role": role, "content": content})
    return Example(where, tuple(found))


def _alpaca(row: dict[str, Any], where: str, strip_reasoning: bool) -> Example:
    prompt = column(row, "instruction", str, where)
    more = column(row, "input", str, where) if row.get("input") is not None else ""
    answer = _without_reasoning(_lines(column(row, "output", str, where)), strip_reasoning)
    return _exchange(where, _lines(f"{prompt}\n\n{more}" if more.strip() else prompt), answer)


_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def _sharegpt(row: dict[str, Any], where: str, strip_reasoning: bool) -> Example:
    turns = []
    for i, turn in enumerate(column(row, "conversations", list, where)):
        if not isinstance(turn, dict):
            raise BadRow(f"conversations[{i}] must be an object with from and value", where=where, fix="mend the row")
        who = column(turn, "from", str, where)
        if who not in _SHAREGPT:
            raise BadRow(f"conversations[{i}] is from {who!r}", where=where, fix=f"one of {', '.join(_SHAREGPT)}")
        turns.append({"role": _SHAREGPT[who], "content": column(turn, "value", str, where)})
    return _messages({"messages": turns}, where, strip_reasoning)


def _text(row: dict[str, Any], where: str, strip_reasoning: bool) -> Example:
    return Example(where, text=_lines(column(row, "text", str, where)))


_FORMATS: dict[str, Callable[[dict[str, Any], str, bool], Example]] = {
    "codev-r1": _codev_r1,
    "prompt-completion": _prompt_completion,
    "messages": _messages,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "text": _text,
}


_KNOWN_BY = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "codev-r1": ("prompt", "response"),
    "prompt-completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "text": ("text",),
}


def format_of(row: dict[str, Any], where: str) -> str:
    """The first format whose columns the row has."""
    for form, columns in _KNOWN_BY.items():
        if all(name in row for name in columns):
            return form
    have = ", ".join(map(repr, row)) or "none"
    raise BadRow(f"columns of no known format: {have}", where=where, fix="name them in the source's columns")


def renamed(row: dict[str, Any], columns: dict[str, str], where: str) -> dict[str, Any]:
    """The row under the names its format uses."""
    return row | {ours: column(row, theirs, object, where) for ours, theirs in columns.items()} if columns else row


def example_of(row: dict[str, Any], where: str, form: str, strip_reasoning: bool, code_only: bool = False) -> Example:
    """Clean one row. Raises Dropped for an empty or cut-off answer, UserError for a row that is not of the format."""
    form = format_of(row, where) if form == "auto" else form
    example = _FORMATS[form](row, where, strip_reasoning)
    if form == "text":
        if not example.text.strip():
            raise Dropped("empty")
        return example
    answers = [m["content"] for m in example.messages if m["role"] == "assistant"]
    if not answers:
        raise BadRow("no assistant turn, so nothing to learn", where=where, fix="add an answer or remove the row")
    if not all(answer.strip() for answer in answers):
        raise Dropped("empty answer")
    if code_only:
        kept = [m | {"content": first_code(m["content"])} if m["role"] == "assistant" else m for m in example.messages]
        return Example(where, tuple(kept))
    return example
