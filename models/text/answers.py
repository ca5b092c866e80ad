"""Where a chat template puts each answer: spans of the rendered conversation, found by rendering its beginnings.

What is supervised goes from the end of an answer's own prompt (as the server would send it) to the end of its turn,
so that tool calls and thoughts are in it, too, and a tool's reply is not.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from models.text.template import LEARN, Message

_HOLE = "\ufdd0hole\ufdd1"
"""Stands in for an answer to find where the template puts it; noncharacters, so no real text holds it."""
Span = tuple[int, int]
Apply = Callable[[Sequence[Message], bool], str]
"""Renders messages, with the prompt for the next answer or without."""


class Rewrites(UserError):
    """The template shows an earlier turn otherwise than it shows it as the last one."""

    def __init__(self) -> None:
        super().__init__("the chat template rewrites earlier turns", fix="split the row into single-turn rows")


@dataclass(frozen=True)
class Shown:
    """The conversation as the model sees it, the spans of the answers to be learnt, and whether one of these is shown
    otherwise than the model would have said it: as the last turn."""

    text: str
    spans: tuple[Span, ...]
    rewritten: bool


def _around(apply: Apply, messages: Sequence[Message], i: int, generate: bool) -> tuple[str, str]:
    """The rendered text before and after the content of message `i`."""
    probed = [*messages[:i], {**messages[i], "content": _HOLE}, *messages[i + 1 :]]
    before, hole, after = apply(probed, generate).partition(_HOLE)
    if not hole:
        raise UserError("the chat template leaves out an assistant turn", fix="change the row or the template")
    return before, after


def _is_plain(message: Message) -> bool:
    """Whether its content is all that it says."""
    return not message.get("tool_calls") and not message.get("reasoning_content")


def _answer(apply: Apply, messages: Sequence[Message]) -> tuple[str, int]:
    """Render a conversation that ends with an answer: the text, and where the answer begins in it."""
    full = apply(messages, False)
    if len(messages) == 1:
        return full, len(_around(apply, messages, 0, False)[0])
    prompt = apply(messages[:-1], True)
    if full.startswith(prompt):
        return full, len(prompt)
    # What the generation prompt inserts before an answer (an empty thought) belongs to training too.
    if _is_plain(messages[-1]):
        return prompt + full[len(_around(apply, messages, len(messages) - 1, False)[0]) :], len(prompt)
    before = apply(messages[:-1], False)
    opening = _opening(apply, messages)
    if not full.startswith(before + opening):
        raise UserError("the chat template shows no place where the last turn begins", fix="change the template")
    return prompt + full[len(before + opening) :], len(prompt)


def _opening(apply: Apply, messages: Sequence[Message]) -> str:
    """What the template writes before any answer at this place."""
    plain = [*messages[:-1], {"role": "assistant", "content": _HOLE}]
    return _around(apply, plain, len(plain) - 1, False)[0][len(apply(messages[:-1], False)) :]


def _earlier(
    apply: Apply, control: re.Pattern[str], text: str, messages: Sequence[Message], i: int, generate: bool
) -> tuple[int, int, bool]:
    """The span of assistant turn `i` in `text`, which starts with `messages` rendered, and whether it is rewritten."""
    upto = apply(messages[: i + 1], False)
    prompt = apply(messages[:i], True) if i else None
    if prompt is not None and text.startswith(upto) and upto.startswith(prompt):
        return len(prompt), len(upto), False
    if not _is_plain(messages[i]):
        raise Rewrites()
    before, after = _around(apply, messages, i, generate)
    base = apply(messages, generate)
    if not (text.startswith(base) and base.startswith(before) and base.endswith(after)):
        raise Rewrites()
    end = len(base) - len(after)
    turn_end = control.match(base, end)
    return len(before), turn_end.end() if turn_end else end, i > 0


def shown(apply: Apply, control: re.Pattern[str], messages: Sequence[Message], last_only: bool) -> Shown:
    """Raises UserError where the template refuses the conversation or loses a part of it."""
    answered = messages[-1]["role"] == "assistant" if messages else False
    text, start = _answer(apply, messages) if answered else (apply(messages, False), 0)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    turns = [i for i in (turns[-1:] if last_only else turns) if messages[i].get(LEARN) is not False]
    history = messages[:-1] if answered else messages
    found = [_earlier(apply, control, text, history, i, answered) for i in turns if i < len(history)]
    spans = [(start, end) for start, end, _ in found]
    if answered and turns and turns[-1] == len(messages) - 1:
        spans.append((start, len(text)))
    rewritten = any(rewritten for _, _, rewritten in found)
    if not rewritten:
        _check_contents(apply, text, messages, dict(zip(turns, spans, strict=True)))
    return Shown(text, tuple(spans), rewritten)


def _check_contents(apply: Apply, text: str, messages: Sequence[Message], learnt: Mapping[int, Span]) -> None:
    """Raise UserError where an answer to be learnt or a system turn is not shown whole, or a question not at all."""
    for i, message in enumerate(messages):
        content, role = message["content"].strip(), message["role"]
        seen = text[slice(*learnt[i])] if i in learnt else text
        if content in seen or role == "tool" or "".join(content.split()) in "".join(seen.split()):
            continue
        if i in learnt:
            fix = "take out of it what the template drops (a thought, words beside a call), or change the template"
            raise UserError("the chat template does not show the whole of an answer", fix=fix)
        if role == "system":
            raise UserError("the chat template drops the system turn", fix="move its text into the user turn")
        if _alike(apply, messages, i, {**message, "content": _HOLE}, apply(messages, False)):
            raise UserError(
                f"the chat template drops the turn of the {role}", fix="take it out, or change the template"
            )


def _alike(apply: Apply, messages: Sequence[Message], i: int, other: Message, whole: str) -> bool:
    """Whether the template still shows the `whole` with `other` in place of message `i`."""
    try:
        return apply([*messages[:i], other, *messages[i + 1 :]], False) == whole
    except UserError:
        return False


def unread(apply: Apply, messages: Sequence[Message]) -> list[str]:
    """What the template does not show of calls, replies, thoughts and names: each is left out in turn."""
    whole, found = apply(messages, False), []
    for i, message in enumerate(messages):
        keys = [key for key in message if key not in ("role", "content", LEARN)]
        if message.get(LEARN) is False or message["role"] != "assistant":
            keys = [key for key in keys if key != "reasoning_content"]
        tried = [(key, {name: value for name, value in message.items() if name != key}) for key in keys]
        tried += [("tool_calls", {**message, "tool_calls": calls}) for calls in _fewer(message.get("tool_calls", ()))]
        if message["role"] == "tool":
            tried.append(("content of a tool", {**message, "content": _HOLE}))
        found += [key for key, other in tried if _alike(apply, messages, i, other, whole)]
    return found


def _fewer(calls: Sequence[Any]) -> Iterator[list[Any]]:
    """The calls of a turn with one of them, or its arguments, left out."""
    for i, call in enumerate(calls):
        function = call["function"]
        bare = [{**call, "function": {**function, "arguments": {}}}] if function["arguments"] else []
        for instead in ([], bare):
            if len(calls) > 1 or instead:
                yield [*calls[:i], *instead, *calls[i + 1 :]]
