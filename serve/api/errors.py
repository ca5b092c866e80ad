"""Answers other than success, all with OpenAI's error object."""

from typing import Any

from pydantic_core import ErrorDetails
from starlette.responses import JSONResponse

from common.errors import UserError

SHOWN = 100
"""Characters of a client's own text that an answer repeats."""


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
        kind = kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        extra = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}, 503: {"retry-after": "1"}}
        return JSONResponse(self.body(), self.status, {**extra.get(self.status, {}), **self.headers})


def shown(text: object) -> str:
    """A client's text, short and printable, for a message."""
    whole = str(text)
    return repr(whole if len(whole) <= SHOWN else whole[:SHOWN] + "...")


def bad_value(message: str, param: str | None = None, code: str = "invalid_parameter") -> Refusal:
    return Refusal(400, message, param=param, code=code)


def refuse_invalid(errors: list[ErrorDetails]) -> Refusal:
    """A 400 for pydantic's list of errors, naming the first parameter at fault."""
    first = errors[0]
    where = [part if isinstance(part, int) else str(part)[:SHOWN] for part in first["loc"]]
    names = ".".join(str(part) for part in where) or "body"
    return bad_value(f"{names}: {_plain(first)}", str(where[0]) if where else None)


def _plain(error: ErrorDetails) -> str:
    """pydantic's message in a client's words: JSON has arrays and objects; a check's own message stands alone."""
    kinds = {"model_type": "an object is needed", "tuple_type": "an array is needed", "list_type": "an array is needed"}
    message = kinds.get(error["type"], error["msg"]).removeprefix("Value error, ")
    return message.replace("Tuple", "Array")


def refuse_user_error(error: UserError) -> Refusal:
    return bad_value(error.what)
