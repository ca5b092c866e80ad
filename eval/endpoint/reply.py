"""What a server answered: its choices as texts, its errors as words. Nothing odd is taken for an empty answer.

`message.content` may be text, a list of parts (Mistral, Anthropic's and Google's gateways), or null beside reasoning, a
refusal or tool calls.
"""

import json
from dataclasses import dataclass
from typing import Any

import httpx

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_TEXT = ("text", "output_text")
_THOUGHT = ("thinking", "reasoning", "redacted_thinking", "reasoning_text", "summary_text")
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")


class Retry(Exception):
    """This attempt failed in a way that another may not; `pause` is what the server asked for."""

    def __init__(self, why: str, pause: float | None = None):
        super().__init__(why)
        self.pause = pause


class Unusable(Exception):
    """An answer that asking again does not mend."""


@dataclass(frozen=True)
class Choice:
    """One answer. `empty`: what stood in place of a text, where there was none."""

    text: str
    finish_reason: str | None
    request_choices: int
    request_tokens: int | None
    empty: str | None = None


def error_of(body: Any) -> tuple[str, str | None, Any]:
    """(words, parameter, code) of an error body, in OpenAI's shape, FastAPI's, or any other."""
    error = body.get("error", body.get("detail", body.get("message"))) if isinstance(body, dict) else body
    if isinstance(error, dict):
        words = error.get("message") or error.get("detail") or json.dumps(error)
        parameter, code = error.get("param"), error.get("code", error.get("status"))
        return str(words)[:500], parameter if isinstance(parameter, str) else None, code
    if isinstance(error, list):  # pydantic's: [{"loc": ["body", "seed"], "msg": ...}]
        first = next((e for e in error if isinstance(e, dict)), {})
        place = [part for part in first.get("loc") or () if part != "body"]
        return json.dumps(error)[:500], str(place[0]) if place else None, first.get("type")
    return (error if isinstance(error, str) else json.dumps(body))[:500], None, None


def parsed(response: httpx.Response) -> Any:
    """The body's JSON; Retry for a body that is none (half of one, or a gateway's page)."""
    try:
        return json.loads(response.content)
    except UnicodeDecodeError:
        text = response.content.decode("utf-8", "replace")
    except ValueError:
        text = ""
    try:
        return json.loads(text)
    except ValueError:
        start = " ".join(response.text[:200].split())[:80]
        raise Retry(f"a body that is not JSON: {start!r}") from None


def _parts(parts: list[Any]) -> tuple[str, str | None]:
    """The text of a list of parts, and what else there was where there is none."""
    texts, other = list[str](), None
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        said = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        if kind in _TEXT and isinstance(said, str):
            texts.append(said)
        elif kind in _THOUGHT:
            other = "reasoning"
        elif kind == "refusal":
            other = other or "refusal"
        else:
            raise Unusable(f"message.content has a part that is no text ({kind!r})")
    text = "".join(texts)
    return text, None if text.strip() else other


def _content(message: Any) -> tuple[str, str | None]:
    """(text, what stood in its place) of a message."""
    content = message.get("content")
    if isinstance(content, list):
        text, empty = _parts(content)
    elif content is None or isinstance(content, str):
        text, empty = content or "", None
    else:
        raise Unusable(f"message.content is neither text nor a list of parts ({type(content).__name__})")
    if text.strip():
        return text, None
    if any(message.get(key) for key in _REASONING):
        empty = "reasoning"
    elif message.get("refusal"):
        empty = empty or "refusal"
    elif message.get("tool_calls"):
        empty = empty or "tool calls"
    return text, empty or (None if isinstance(content, str) else "null")


def choices_of(body: Any) -> list[Choice]:
    """Read a response of status 200; raises Retry where another attempt may mend it, else Unusable."""
    if isinstance(body, dict) and body.get("error") and not body.get("choices"):
        words, _, code = error_of(body)
        transient = code in RETRIED or (isinstance(code, str) and code.isdigit() and int(code) in RETRIED)
        raise (Retry if transient else Unusable)(f"an error with status 200: {words}")
    try:
        tokens = (body.get("usage") or {}).get("completion_tokens")
        found = sorted(enumerate(body["choices"]), key=lambda pair: pair[1].get("index", pair[0]))
        said = [(*_content(choice["message"]), choice.get("finish_reason")) for _, choice in found]
    except (AttributeError, KeyError, TypeError) as error:
        raise Retry(f"a response without choices or messages ({error!r})") from None
    if not said:
        raise Retry("a response with no choices")
    return [Choice(text, reason, len(said), tokens, empty) for text, empty, reason in said]
