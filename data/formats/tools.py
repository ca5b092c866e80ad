"""Tools, and calls of them, in the shape that chat templates read: OpenAI's, with arguments as an object."""

import json
from typing import Any

from data.formats.reading import Reading, empty
from data.sources.json_rows import BadRow

_CALL = frozenset({"id", "type", "function", "name", "arguments", "parameters", "index"})


def _parsed(value: Any) -> Any:
    """A JSON text's value; any other as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def tools_of(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """A list of tools, or the JSON text of one."""
    if empty(value):
        return ()
    found = _parsed(value)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadRow("'tools' must be a list of objects, or the JSON of one", where=where, fix="mend the row")
    return tuple(found)


def calls_of(value: Any, at: str, where: str, reading: Reading) -> list[dict[str, Any]]:
    """The calls of a turn: a list, one call, or the JSON text of either."""
    found = _parsed(value)
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list):
        raise BadRow(f"{at} must be a list of calls", where=where, fix="mend the row")
    return [_call(one, at, where, reading) for one in found]


def _call(one: Any, at: str, where: str, reading: Reading) -> dict[str, Any]:
    function = one.get("function", one) if isinstance(one, dict) else None
    if isinstance(function, str):
        function = {**one, "name": function}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        fix = 'write {"type": "function", "function": {"name": ..., "arguments": {...}}}'
        raise BadRow(f"{at}: a call has no name", where=where, fix=fix)
    for part in {id(part): part for part in (one, function)}.values():
        reading.left(part, part.keys() - _CALL, where, "messages[].tool_calls[].")
    arguments = function.get("arguments", function.get("parameters"))
    arguments = _parsed(arguments) if not empty(arguments) else {}
    named = {"id": one["id"]} if isinstance(one.get("id"), str) else {}
    return {"type": "function", **named, "function": {"name": function["name"], "arguments": arguments}}
