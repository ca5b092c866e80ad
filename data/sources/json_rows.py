"""JSON sources, line by line or as one array: whatever is malformed is an error that names its file and line."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from common.errors import UserError
from data.sources.packed import existing, is_packed, opened

_CHUNK = 1 << 20
_SPACE = re.compile(r"\s*")


class BadRow(UserError):
    """One row that is not what its source promises; the rows after it can still be read."""


def _where(path: str, line: int) -> str:
    return f"{path}:{line}"


def count_lines(path: str) -> int:
    """Lines in a file, the last one counted even without its newline; 0, as unknown, in a compressed one."""
    if is_packed(path):
        return 0
    lines, last = 0, b"\n"
    with open(existing(path), "rb") as f:
        while chunk := f.read(_CHUNK):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return lines + (last != b"\n")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise BadRow(
            f"not UTF-8 text (byte {error.start} of the line)", where=where, fix="save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        fix = "mend the line: each is one object; or write one array of objects, without anything around it"
        raise BadRow(f"malformed JSON: {error.msg} at column {error.colno}", where=where, fix=fix) from None
    except RecursionError:
        raise BadRow("malformed JSON: nested too deeply", where=where, fix="mend the line") from None
    except ValueError as error:  # a number of more digits than Python reads, or a key that stands twice
        raise BadRow(f"malformed JSON: {error}", where=where, fix="mend the line") from None
    if not isinstance(row, dict):
        raise _not_an_object(row, where)
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


def _not_an_object(row: Any, where: str) -> BadRow:
    what = f"a row must be a JSON object, this is {_kind(row)}"
    return BadRow(what, where=where, fix='write {"column": value, ...}')


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def column(row: dict[str, Any], name: str, kind: type, where: str) -> Any:
    """The value of a column, of the kind it must have."""
    if name not in row:
        have = ", ".join(map(repr, row)) or "none"
        raise BadRow(
            f"no column {name!r} (columns here: {have})", where=where, fix="add it, or set the source's format"
        )
    value = row[name]
    if not isinstance(value, kind):
        wanted = {str: "a string", list: "a list", dict: "an object"}[kind]
        raise BadRow(f"{name!r} must be {wanted}, this is {_kind(value)}", where=where, fix="mend the row")
    return value


_BLANK = b"\xef\xbb\xbf \t\r\n"


def is_array(path: str) -> bool:
    """Whether a file holds one JSON array, and not an object a line."""
    with opened(path) as f:
        while (start := f.read(_CHUNK)) and not start.strip(_BLANK):
            pass
        return start.lstrip(_BLANK).startswith(b"[")


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def read_array(path: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yield ("file:line" of where it begins, the row or why it is none) for each element of a JSON array. Raises
    UserError with its line where the array itself is malformed."""
    try:
        with opened(path) as f:
            text = f.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text (byte {error.start})", where=path, fix="save the file as UTF-8") from None
    decoder, at, line, counted = json.JSONDecoder(object_pairs_hook=_object), text.index("[") + 1, 1, 0
    while True:
        at = _past_space(text, at)
        line, counted = line + text.count("\n", counted, at), at
        where = _where(path, line)
        if text[at : at + 1] == "]":
            if (rest := _past_space(text, at + 1)) < len(text):
                where = _where(path, line + text.count("\n", at, rest))
                fix = "write all rows into the one array, or one object a line"
                raise UserError("something stands after the array of rows", where=where, fix=fix)
            return
        try:
            row, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))
            raise UserError(f"malformed JSON array: {what}", where=where, fix="mend the file") from None
        yield where, row if isinstance(row, dict) else _not_an_object(row, where)
        at = _past_space(text, at)
        if text[at : at + 1] not in (",", "]"):
            raise UserError("malformed JSON array: no comma after a row", where=where, fix="mend the file")
        at += text[at] == ","


def read_lines(path: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yield ("file:line", the row or what is wrong with it) for each line of a JSONL file that is not blank."""
    with opened(path) as f:
        for number, line in enumerate(f, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.isspace() or not line:
                continue
            where = _where(path, number)
            try:
                yield where, _parse(line, where)
            except BadRow as error:
                yield where, error
