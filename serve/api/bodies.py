"""A request's bytes to a checked body: strict JSON, then the endpoint's schema. Runs off the event loop."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from serve.api.errors import Refusal, bad_value, refuse_invalid, shown
from serve.api.protocol import Part

Parsed = TypeVar("Parsed", bound=Part)
Apart = Callable[..., Awaitable[Any]]
LARGEST_EXACT = 2**53


class _Repeated(ValueError):
    """A name that stands twice in an object: which value counts would be a guess."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        raise _Repeated(next(name for name, _ in pairs if name in seen or seen.add(name)))
    return found


def _number(text: str) -> int | float:
    """JSON has one kind of number: 2.0 is 2, wherever 2 is taken."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < LARGEST_EXACT else value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def declared_json(kind: str) -> bool:
    """Whether a Content-Type is JSON's. Others are what a page of another site may send without asking us."""
    name = kind.partition(";")[0].strip().lower()
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))


async def received(request: Request, kind: type[Parsed], apart: Apart) -> Parsed:
    """The body of a request, parsed by `apart`, which runs a function off the event loop."""
    if not declared_json(request.headers.get("content-type", "")):
        raise Refusal(415, "Content-Type: application/json is needed", code="unsupported_media_type")
    return await apart(parse, await request.body(), kind)


def parse(content: bytes, kind: type[Parsed]) -> Parsed:
    """The body of an endpoint; raises Refusal (400) with what is wrong and where."""
    try:
        return kind.model_validate(read_json(content))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        for one in errors:
            if one["type"] == "not_taken":
                one["loc"] = (*one["loc"], one.get("ctx", {})["field"])
        raise refuse_invalid(errors) from None


def read_json(content: bytes) -> Any:
    """JSON as RFC 8259 has it, which is less than Python's: no NaN, no repeated names, no half characters."""
    try:
        text = content.decode()
        value = json.loads(text, object_pairs_hook=_object, parse_float=_number, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _invalid(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _invalid(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _invalid("nested too deeply") from None
    except _Repeated as error:
        raise _invalid(f"the name {shown(error)} stands twice in an object") from None
    except ValueError as error:
        what = str(error) if "JSON number" in str(error) else "a number has too many digits"
        raise _invalid(what) from None
    if "\\u" in text:
        _whole_characters(value)
    return value


def _whole_characters(value: Any) -> None:
    parts = value.items() if isinstance(value, dict) else [(None, value)]
    for name, part in parts:
        try:
            json.dumps([name, part], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            param = name if name is not None and name.isascii() else None
            raise bad_value(f"{param or 'body'}: half a surrogate pair is no character", param) from None


def _invalid(what: str) -> Refusal:
    return bad_value(f"the body is not valid JSON: {what}", code="invalid_json")
