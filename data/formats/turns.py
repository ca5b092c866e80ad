"""The turns of a conversation, as rows of every format spell them: roles, parts, tool calls, thoughts, loss masks."""

from collections.abc import Callable
from typing import Any

from data.formats.reading import LEARNT, MASKED, THOUGHTS, Reading, empty
from data.formats.reasoning import OPEN, without_reasoning
from data.formats.tools import calls_of
from data.sources.json_rows import BadRow, column
from models.text.template import LEARN, Message

ROLES = ("system", "user", "assistant", "tool")
_ALSO = {"developer": "system", "function": "tool"}
_CALLS = ("tool_calls", "function_call")
_KEPT = ("name", "tool_call_id")
_READ = frozenset({"role", "content", *_CALLS, *_KEPT, *THOUGHTS, *LEARNT, *MASKED})
_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"} | {
    "function_call": "assistant",
    **dict.fromkeys(("tool", "observation", "function_response", "function"), "tool"),
}


def lines(text: str) -> str:
    return text.replace("\r\n", "\n") if "\r" in text else text


def said(value: Any, name: str, where: str, reading: Reading) -> str:
    """A text, or a list of parts that are text."""
    if isinstance(value, str):
        return lines(value)
    if not isinstance(value, list):
        return lines(column({name: value}, name, str, where))
    found = []
    for part in value:
        if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
            reading.left(part, part.keys() - {"type", "text"}, where, f"messages[].{name}[].")
            part = part["text"]
        if not isinstance(part, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            fix = 'write {"type": "text", "text": ...}'
            raise BadRow(f"{name!r} holds a part of the kind {kind!r}: only text is read", where=where, fix=fix)
        found.append(part)
    return lines("".join(found))


def spoken(answer: str, reading: Reading, of: Callable[[str], str] = without_reasoning) -> str:
    """An answer without what was thought before it, which is counted, where thoughts are left out."""
    found = of(answer) if reading.strip_reasoning else answer
    if found.count("think>") < answer.count("think>"):
        reading.count(OPEN)
    return found


def is_learnt(message: dict[str, Any], role: str, where: str, reading: Reading, of: str = "messages[].") -> bool:
    """What the keys of a turn say of its loss; they must agree."""
    found = set()
    for key in (*LEARNT, *MASKED):
        value = message.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            reading.leave(f"{of}{key}", where, f"{value!r} is neither 0 nor 1")
        elif role != "assistant":
            if bool(value) == (key in LEARNT) and key != "weight":
                reading.leave(f"{of}{key}", where, f"a {role} turn is not learnt")
        elif reading.skips(f"{of}{key}"):
            reading.count(f"{of}{key}")
        else:
            found.add(bool(value) == (key in LEARNT))
    if len(found) > 1:
        raise BadRow("the keys of a turn disagree whether it is learnt", where=where, fix="keep one of them")
    return found != {False}


def turn(message: Any, at: str, where: str, reading: Reading) -> Message:
    """One message, with only such keys as it needs: most have a role and a content."""
    if not isinstance(message, dict):
        raise BadRow(f"{at} must be an object with role and content", where=where, fix="mend the row")
    role = column(message, "role", str, where)
    role = _ALSO.get(role, role)
    if role not in ROLES:
        raise BadRow(f"{at} has the role {role!r}", where=where, fix=f"use one of {', '.join(ROLES)}")
    plain = len(message) == 2 and "content" in message
    calls = [] if plain else _calls(message, at, where, reading)
    silent = message.get("content") is None and any(not empty(message.get(key)) for key in _CALLS)
    content = "" if silent else column(message, "content", object, where)
    content = said(content, "content", where, reading)
    if role == "assistant":
        content = spoken(content, reading)
    found: Message = {"role": role, "content": content}
    if plain:
        return found
    return found | _more(message, role, calls, where, reading)


def _calls(message: dict[str, Any], at: str, where: str, reading: Reading) -> list[dict[str, Any]]:
    found = []
    for key in _CALLS:
        if not empty(message.get(key)):
            if reading.skips(f"messages[].{key}"):
                reading.count(f"messages[].{key}")
            else:
                found += calls_of(message[key], f"{at}.{key}", where, reading)
    return found


def _more(message: dict[str, Any], role: str, calls: list[dict[str, Any]], where: str, reading: Reading) -> Message:
    found: Message = {"tool_calls": calls} if calls else {}
    if calls and role != "assistant":
        raise BadRow(f"a {role} turn calls a tool", where=where, fix="give the call to an assistant turn")
    found |= {key: message[key] for key in _KEPT if isinstance(message.get(key), str) and message[key]}
    found |= thought(message, role, where, reading)
    reading.left(message, message.keys() - _READ, where, "messages[].")
    if not is_learnt(message, role, where, reading):
        found[LEARN] = False
    return found


def thought(message: dict[str, Any], role: str, where: str, reading: Reading, of: str = "messages[].") -> Message:
    """What was thought before an answer, where it is kept and stands in a key of its own."""
    found: Message = {}
    for key in THOUGHTS:
        if empty(message.get(key)):
            continue
        if reading.strip_reasoning or role != "assistant" or found or reading.skips(f"{of}{key}"):
            reading.count(f"{of}{key}")
        else:
            found = {"reasoning_content": said(message[key], key, where, reading)}
    return found


def turns(value: list[Any], name: str, where: str, reading: Reading) -> list[Message]:
    return [turn(message, f"{name}[{i}]", where, reading) for i, message in enumerate(value)]


def sharegpt_turns(value: list[Any], where: str, reading: Reading) -> list[Message]:
    """`from` and `value`; a `function_call` is a turn of the assistant whose value is the call."""
    found = []
    for i, one in enumerate(value):
        at = f"conversations[{i}]"
        if not isinstance(one, dict):
            raise BadRow(f"{at} must be an object with from and value", where=where, fix="mend the row")
        if "from" not in one and "role" in one:
            found.append(turn(one, at, where, reading))
            continue
        who, content = column(one, "from", str, where), column(one, "value", object, where)
        if who not in _SHAREGPT:
            raise BadRow(f"{at} is from {who!r}", where=where, fix=f"one of {', '.join(_SHAREGPT)}")
        more = {key: item for key, item in one.items() if key not in ("from", "value")} if len(one) > 2 else {}
        message = {"role": _SHAREGPT[who], "content": content, **more}
        if who == "function_call":
            message |= {"content": None, "tool_calls": content}
        found.append(turn(message, at, where, reading))
    return found


def history(value: Any, where: str, reading: Reading) -> list[Message]:
    """Earlier turns: messages, or pairs of what was asked and answered."""
    if not isinstance(value, list):
        raise BadRow("'history' must be a list of turns", where=where, fix="mend the row")
    if all(isinstance(one, dict) and "role" in one for one in value):
        return turns(value, "history", where, reading)
    found: list[Message] = []
    for i, pair in enumerate(value):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BadRow(f"history[{i}] must be a question and its answer", where=where, fix='write ["...", "..."]')
        for role, content in zip(("user", "assistant"), pair, strict=True):
            found.append(turn({"role": role, "content": content}, f"history[{i}]", where, reading))
    return found
