"""Row -> example, by format: what a row must hold, and what of it is kept.

`Dropped` is a row that is left out and counted under its reason; a row that breaks its format is a UserError.
"""

from collections.abc import Callable
from typing import Any

from data.formats.example import Dropped, Example
from data.formats.reading import LEARNT, MASKED, SYSTEM, THOUGHTS, Reading, empty
from data.formats.reasoning import final_answer, first_code, without_reasoning
from data.formats.tools import tools_of
from data.formats.turns import history, is_learnt, lines, said, sharegpt_turns, spoken, thought, turns
from data.sources.json_rows import BadRow, column
from models.text.template import LEARN, Message

Row = dict[str, Any]
_BESIDE = frozenset({*SYSTEM, "history", "tools"})
"""Columns beside the turns of any conversation."""
_OF_ANSWER = frozenset({*THOUGHTS, *LEARNT, *MASKED})
"""Columns beside an answer that is a text."""


def _asked(value: Any, name: str, where: str, reading: Reading) -> list[Message]:
    """A prompt: a text, or TRL's list of messages, whose answers are context."""
    if not isinstance(value, list) or not all(isinstance(one, dict) and "role" in one for one in value):
        return [{"role": "user", "content": said(value, name, where, reading)}]
    found = turns(value, name, where, reading)
    return [message | {LEARN: False} if message["role"] == "assistant" else message for message in found]


def _answered(value: Any, name: str, row: Row, where: str, reading: Reading) -> list[Message]:
    """An answer: a text, with what was thought before it in a column of its own, or a list of messages."""
    if isinstance(value, list) and all(isinstance(one, dict) and "role" in one for one in value):
        reading.left(row, row.keys() & _OF_ANSWER, where)
        return turns(value, name, where, reading)
    answer = spoken(
        said(value, name, where, reading), reading, final_answer if name == "response" else without_reasoning
    )
    found: Message = {"role": "assistant", "content": answer}
    if not row.keys().isdisjoint(_OF_ANSWER):
        found |= thought(row, "assistant", where, reading, of="")
        if not is_learnt(row, "assistant", where, reading, of=""):
            found[LEARN] = False
    return [found]


def _exchange(question: str, answer: str) -> Callable[[Row, str, Reading], list[Message]]:
    def read(row: Row, where: str, reading: Reading) -> list[Message]:
        last = _answered(column(row, answer, object, where), answer, row, where, reading)
        return [*_asked(column(row, question, object, where), question, where, reading), *last]

    return read


def _alpaca(row: Row, where: str, reading: Reading) -> list[Message]:
    prompt = column(row, "instruction", str, where)
    more = column(row, "input", str, where) if row.get("input") is not None else ""
    asked = lines(f"{prompt}\n\n{more}" if more.strip() else prompt)
    last = _answered(column(row, "output", str, where), "output", row, where, reading)
    return [{"role": "user", "content": asked}, *last]


def _messages(row: Row, where: str, reading: Reading) -> list[Message]:
    return turns(column(row, "messages", list, where), "messages", where, reading)


def _sharegpt(row: Row, where: str, reading: Reading) -> list[Message]:
    return sharegpt_turns(column(row, "conversations", list, where), where, reading)


_FORMATS: dict[str, tuple[Callable[[Row, str, Reading], list[Message]], frozenset[str]]] = {
    "codev-r1": (_exchange("prompt", "response"), _BESIDE | _OF_ANSWER | {"prompt", "response"}),
    "prompt-completion": (_exchange("prompt", "completion"), _BESIDE | _OF_ANSWER | {"prompt", "completion"}),
    "messages": (_messages, _BESIDE | {"messages"}),
    "alpaca": (_alpaca, _BESIDE | _OF_ANSWER | {"instruction", "input", "output"}),
    "sharegpt": (_sharegpt, _BESIDE | {"conversations"}),
}
"""How each is read, and the columns that are."""
_KNOWN_BY = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "codev-r1": ("prompt", "response"),
    "prompt-completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "text": ("text",),
}


def format_of(row: Row, where: str) -> str:
    """The first format whose columns the row has."""
    for form, columns in _KNOWN_BY.items():
        if all(name in row and row[name] is not None for name in columns):
            return form
    have = ", ".join(map(repr, row)) or "none"
    fix = "name them in the source's columns"
    if len(row) == 1 and isinstance(rows := next(iter(row.values())), list) and all(isinstance(r, dict) for r in rows):
        fix += "; if this holds all rows, write its list alone into the file"
    raise BadRow(f"columns of no known format: {have}", where=where, fix=fix)


def renamed(row: Row, columns: dict[str, str], where: str) -> Row:
    """The row under the names its format uses; what had such a name before and is not asked for keeps its own."""
    if not columns:
        return row
    found = {ours: column(row, theirs, object, where) for ours, theirs in columns.items()}
    hidden = {f"{name} (renamed over)": row[name] for name in found.keys() & row.keys() - set(columns.values())}
    return row | found | hidden


def _conversation(row: Row, where: str, form: str, reading: Reading) -> Example:
    read, columns = _FORMATS[form]
    messages = read(row, where, reading)
    extra = row.keys() - columns
    if extra:
        reading.left(row, extra - reading.known, where)
    if len(row) == 1 or row.keys().isdisjoint(_BESIDE):
        return Example(where, tuple(messages))
    return _with_beside(row, messages, where, reading)


def _with_beside(row: Row, messages: list[Message], where: str, reading: Reading) -> Example:
    """System text goes first, history before what is asked last; tools go to the template."""

    def wanted(name: str) -> bool:
        if empty(row.get(name)):
            return False
        if reading.skips(name):
            reading.count(name)
            return False
        return True

    head = [message for message in messages[:1] if message["role"] == "system"]
    if wanted("history"):
        messages = [*head, *history(row["history"], where, reading), *messages[len(head) :]]
    for name in filter(wanted, SYSTEM):
        text = said(row[name], name, where, reading)
        if messages and messages[0]["role"] == "system":
            if messages[0]["content"].strip() != text.strip():
                what = f"the row has a column {name!r} and a system turn"
                raise BadRow(what, where=where, fix=f"keep one of them, or let the column go: data.unused: [{name}]")
        else:
            messages = [{"role": "system", "content": text}, *messages]
    return Example(where, tuple(messages), tools=tools_of(row["tools"], where) if wanted("tools") else ())


def _document(row: Row, where: str, reading: Reading) -> Example:
    text = lines(column(row, "text", str, where))
    reading.left(row, row.keys() - {"text"} - reading.known, where)
    if not text.strip():
        raise Dropped("empty")
    return Example(where, text=text)


def example_of(row: Row, where: str, form: str, reading: Reading, code_only: bool = False) -> Example:
    """Clean one row. Raises Dropped for an empty or cut-off answer, UserError for a row that is not of the format."""
    form = format_of(row, where) if form == "auto" else form
    if form == "text":
        return _document(row, where, reading)
    example = _conversation(row, where, form, reading)
    answers = [message for message in example.messages if message["role"] == "assistant"]
    if not answers:
        raise BadRow("no assistant turn, so nothing to learn", where=where, fix="add an answer or remove the row")
    if not all(answer["content"].strip() or answer.get("tool_calls") for answer in answers):
        raise Dropped("empty answer")
    if not code_only:
        return example
    kept = [m | {"content": first_code(m["content"])} if _is_answer(m) else m for m in example.messages]
    return Example(where, tuple(kept), tools=example.tools)


def _is_answer(message: Message) -> bool:
    return message["role"] == "assistant" and not message.get("tool_calls")
