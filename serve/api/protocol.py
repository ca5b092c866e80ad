"""The bodies of OpenAI's API as this server honours them. What it cannot honour is an error, never ignored.

Fields that change nothing at their neutral value are accepted with that value only: `serve.api.fields`.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from serve.api import fields
from serve.api.fields import NO_TOOLS, Known, NotTaken, without_neutral

MOST_SAMPLES = 128
MOST_STOPS = 256
LONGEST_STOP = 1024
MOST_TOKENS = 2**31

Stop = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_STOP)]
Limit = Annotated[int, Field(ge=1, lt=MOST_TOKENS)]


def one_of(what: str) -> WrapValidator:
    """One message for a choice of types, in place of one for each. The error says that `what` is needed."""

    def check(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError("one_of", "{what} is needed", {"what": what}) from None

    return WrapValidator(check)


# Every array is left at its first fault: a body of megabytes has millions, and each would be kept and told.
Texts = Annotated[list[str], Field(fail_fast=True)]
Ids = Annotated[list[int], Field(fail_fast=True)]


class Part(BaseModel):
    """An object of a request. null means the default, as in OpenAI's API."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    known: ClassVar[tuple[Known, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        try:
            return without_neutral(body, cls.known, cls.model_fields)
        except NotTaken as error:
            raise PydanticCustomError("not_taken", "{why}", {"why": error.why, "field": error.name}) from None


class StreamOptions(Part):
    known = fields.STREAM_OPTIONS
    include_usage: bool = False
    continuous_usage_stats: bool = Field(False, description="vLLM's: the usage so far in every chunk")


class Body(Part):
    """What chat and text completions share."""

    model: str
    n: int = Field(1, ge=1, le=MOST_SAMPLES)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: tuple[Stop, ...] = Field((), max_length=MOST_STOPS, fail_fast=True)
    stream: bool = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = Field(False, description="vLLM's: go on past end tokens")
    return_token_ids: bool = Field(False, description="vLLM's: add prompt_token_ids and token_ids to the answer")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, stop: Any) -> Any:
        return (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else stop


class TextPart(Part):
    type: Literal["text"]
    text: str


Said = Annotated[
    str | Annotated[list[TextPart], Field(fail_fast=True)], one_of("a text, or an array of parts of type text,")
]


ROLES = f"system, developer, user or assistant ({NO_TOOLS})"


class ChatMessage(Part):
    known = fields.MESSAGE
    role: Annotated[Literal["system", "developer", "user", "assistant"], one_of(ROLES)]
    content: Said | None = None

    @model_validator(mode="after")
    def _something_said(self) -> Self:
        if self.role != "assistant" and not isinstance(self.content, str) and not self.content:
            raise PydanticCustomError("missing", "a {role} message needs its content", {"role": self.role})
        return self

    def plain(self) -> dict[str, str]:
        """As templates know it: `developer` is what `system` is called for some models; no content is an empty turn."""
        parts = self.content or ""
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatBody(Body):
    known = fields.CHAT
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ")
        return self

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


Prompt = Annotated[
    Annotated[str, Field(min_length=1)]
    | Annotated[Texts, Field(min_length=1)]
    | Annotated[Ids, Field(min_length=1)]
    | Annotated[list[Annotated[Ids, Field(min_length=1)]], Field(min_length=1, fail_fast=True)],
    one_of("a text, token ids, or an array of texts or of arrays of ids, and not an empty one,"),
]


class TextBody(Body):
    known = fields.TEXT
    prompt: Prompt
    max_tokens: int = Field(16, ge=0, lt=MOST_TOKENS)
    logprobs: int | None = Field(None, ge=0, le=1)
    echo: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
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


class TokenizeBody(Part):
    """vLLM's `/tokenize`: a text, or a conversation up to where the model answers."""

    known = (Known("add_generation_prompt", (True,)), Known("chat_template_kwargs", ({},)), Known("tools", ([],)))
    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, fail_fast=True)
    add_special_tokens: bool | None = None
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("either prompt or messages is needed")
        if self.messages is not None and self.add_special_tokens:
            raise ValueError("add_special_tokens is for a prompt; the chat template places a conversation's")
        return self


class DetokenizeBody(Part):
    """vLLM's `/detokenize`."""

    model: str | None = None
    tokens: list[int] = Field(fail_fast=True)
