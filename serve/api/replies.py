"""The JSON that goes back: chat and text completions, whole or as stream chunks, in OpenAI's shapes."""

import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from serve.api.text import Completion, Delta, Vocabulary
from serve.engine.request import Token


class Placed(NamedTuple):
    """A token where it stands: where it begins in the text, and whether it begins one. `token` is None where it has no
    log-probability, as an echoed prompt's first."""

    id: int
    start: int
    first: bool
    token: Token | None


def placed(tokens: list[Token], offsets: list[int], begins: bool) -> list[Placed]:
    """`begins`: the first of them begins its text; others follow one that was sent before."""
    together = zip(tokens, offsets, strict=True)
    return [Placed(token.id, start, begins and i == 0, token) for i, (token, start) in enumerate(together)]


def chat_logprobs(placed: list[Placed], vocabulary: Vocabulary, top: int) -> dict[str, Any]:
    def entry(token: int, logprob: float, first: bool) -> dict[str, Any]:
        return {"token": vocabulary.text(token, first), "bytes": vocabulary.bytes(token, first), "logprob": logprob}

    content = []
    for _, _, first, t in placed:
        if t is not None:
            best = [entry(t.best, t.best_logprob, first)] if top else []
            content.append({**entry(t.id, t.logprob, first), "top_logprobs": best})
    return {"content": content, "refusal": None}


def text_logprobs(placed: list[Placed], vocabulary: Vocabulary, top: int) -> dict[str, Any]:
    return {
        "tokens": [vocabulary.text(one.id, one.first) for one in placed],
        "token_logprobs": [None if one.token is None else one.token.logprob for one in placed],
        "top_logprobs": [_top(one, vocabulary) for one in placed] if top else None,
        "text_offset": [one.start for one in placed],
    }


def _top(one: Placed, vocabulary: Vocabulary) -> dict[str, float] | None:
    """By text: where two tokens show the same, the likelier one's value stands."""
    t = one.token
    if t is None:
        return None
    return {vocabulary.text(t.id, one.first): t.logprob, vocabulary.text(t.best, one.first): t.best_logprob}


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class Reply:
    """The parts of one answer that do not change: its id, time, model, and which shape it has."""

    def __init__(self, model: str, vocabulary: Vocabulary, *, chat: bool, logprobs: bool, top: int, token_ids: bool):
        self.vocabulary, self.chat, self.logprobs, self.top, self.token_ids = vocabulary, chat, logprobs, top, token_ids
        self.kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl" if chat else "cmpl"
        self.head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def _logprobs(self, part: Completion | Delta, begins: bool) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        found = chat_logprobs if self.chat else text_logprobs
        return found(placed(part.tokens, part.offsets, begins), self.vocabulary, self.top)

    def _choice(self, index: int, content: dict[str, Any], part: Completion | Delta, begins: bool) -> dict[str, Any]:
        extra = {"token_ids": [t.id for t in part.tokens]} if self.token_ids else {}
        finish = part.finish.value if part.finish else None
        return {"index": index, **content, "logprobs": self._logprobs(part, begins), "finish_reason": finish, **extra}

    def choice(self, index: int, done: Completion) -> dict[str, Any]:
        """One completed choice."""
        message = {"role": "assistant", "content": done.text, "refusal": None}
        content = {"message": message} if self.chat else {"text": done.text}
        return self._choice(index, content, done, begins=True)

    def whole(self, choices: list[dict[str, Any]], counts: dict[str, int], prompt: Sequence[int]) -> dict[str, Any]:
        extra = {"prompt_token_ids": prompt} if self.token_ids else {}
        return {**self.head, "object": self.kind, "choices": choices, "usage": counts, **extra}

    def chunk(self, index: int, delta: Delta, first: bool = False) -> dict[str, Any]:
        """One stream event for one choice."""
        message: dict[str, Any] = {"role": "assistant"} if first else {}
        content = {"delta": message | {"content": delta.text}} if self.chat else {"text": delta.text}
        return self._event([self._choice(index, content, delta, begins=first)])

    def last(self, counts: dict[str, int]) -> dict[str, Any]:
        """The event that carries the usage, after all choices have ended."""
        return {**self._event([]), "usage": counts}

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.head, "object": "chat.completion.chunk" if self.chat else self.kind, "choices": choices}
