"""The bodies of OpenAI's API as this server honours them. What it cannot honour is an error, never ignored.

Fields that change nothing at their neutral value are accepted with that value only.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from common.errors import UserError

MOST_SAMPLES = 128
MOST_STOPS = 4

Zero = Annotated[float, Field(ge=0, le=0)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    include_usage: bool = False


def _is_text(value: Any) -> bool:
    """Whether all strings in a body can be written as UTF-8: JSON can spell half of a surrogate pair."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as one if not one.isascii():
                try:
                    one.encode()
                except UnicodeEncodeError:
                    return False
            case dict() as one:
                waiting += [*one, *one.values()]
            case list() as one:
                waiting += one
            case _:
                pass
    return True


class Body(BaseModel):
    """What chat and text completions share. null means the default, as in OpenAI's API."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    n: int = Field(1, ge=1, le=MOST_SAMPLES)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: tuple[str, ...] = Field((), max_length=MOST_STOPS)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    ignore_eos: bool = Field(False, description="vLLM's: go on past end tokens")
    return_token_ids: bool = Field(False, description="vLLM's: add prompt_token_ids and token_ids to the answer")
    frequency_penalty: Zero = 0
    presence_penalty: Zero = 0

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, body: Any) -> Any:
        if not _is_text(body):
            raise ValueError("half of a surrogate pair (\\ud800 to \\udfff) is no text")
        return {k: v for k, v in body.items() if v is not None} if isinstance(body, dict) else body

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, stop: Any) -> Any:
        return (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else stop

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if not all(stop):
            raise ValueError("a stop string must not be empty")
        return stop


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": text}


class ChatBody(Body):
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> "ChatBody":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ")
        return self

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class TextBody(Body):
    prompt: str | list[str] | list[int] | list[list[int]] = Field(min_length=1)
    max_tokens: int = Field(16, ge=0)
    logprobs: int | None = Field(None, ge=0, le=1)
    echo: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "TextBody":
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens 0 makes sense with echo only")
        if self.echo and self.stream:
            raise ValueError("echo cannot be streamed here")
        return self

    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or a list of token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[i for i in self.prompt if isinstance(i, int)]]
        return [p for p in self.prompt if not isinstance(p, int)]


class Refusal(Exception):
    """An answer other than 200, with OpenAI's error object."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        kinds = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}
        kind = kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def refuse_invalid(errors: list[Any]) -> Refusal:
    """A 400 for pydantic's list of errors, naming the first parameter at fault."""
    first = errors[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    param = where[0] if where else None
    what = "not supported by this server" if first["type"] == "extra_forbidden" else first["msg"]
    return Refusal(400, f"{'.'.join(where) or 'body'}: {what}", param=param, code="invalid_parameter")


def refuse_user_error(error: UserError) -> Refusal:
    return Refusal(400, error.what, code="invalid_parameter")
