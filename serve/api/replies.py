"""The JSON that goes back: chat and text completions, whole or as stream chunks, in OpenAI's shapes."""

import time
import uuid
from typing import Any

from serve.api.text import Completion, Delta, Vocabulary
from serve.engine.request import Token


def chat_logprobs(tokens: list[Token], vocabulary: Vocabulary, top: int) -> dict[str, Any]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = vocabulary.text(token)
        return {"token": text, "bytes": list(text.encode()), "logprob": logprob}

    return {
        "content": [
            {**entry(t.id, t.logprob), "top_logprobs": [entry(t.best, t.best_logprob)] if top else []} for t in tokens
        ],
        "refusal": None,
    }


def text_logprobs(
    tokens: list[Token], vocabulary: Vocabulary, top: int, first: int | None = None, offset: int = 0
) -> dict[str, Any]:
    """`first`: a leading token without log-probability (an echoed prompt's), as in OpenAI's API."""
    ids = [*([] if first is None else [first]), *(t.id for t in tokens)]
    blank: list[Any] = [] if first is None else [None]
    texts = [vocabulary.text(i) for i in ids]
    starts = [offset]
    for text in texts:
        starts.append(starts[-1] + len(text))
    return {
        "tokens": texts,
        "token_logprobs": blank + [t.logprob for t in tokens],
        "top_logprobs": blank + [_top(t, vocabulary) for t in tokens] if top else None,
        "text_offset": starts[:-1],
    }


def _top(token: Token, vocabulary: Vocabulary) -> dict[str, float]:
    return {vocabulary.text(token.id): token.logprob, vocabulary.text(token.best): token.best_logprob}


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class Reply:
    """The parts of one answer that do not change: its id, time, model, and which shape it has."""

    def __init__(self, model: str, vocabulary: Vocabulary, *, chat: bool, logprobs: bool, top: int, token_ids: bool):
        self.vocabulary, self.chat, self.logprobs, self.top, self.token_ids = vocabulary, chat, logprobs, top, token_ids
        self.kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl" if chat else "cmpl"
        self.head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return (chat_logprobs if self.chat else text_logprobs)(tokens, self.vocabulary, self.top)

    def _choice(self, index: int, content: dict[str, Any], tokens: list[Token], finish: str | None) -> dict[str, Any]:
        extra = {"token_ids": [t.id for t in tokens]} if self.token_ids else {}
        return {"index": index, **content, "logprobs": self._logprobs(tokens), "finish_reason": finish, **extra}

    def choice(self, index: int, done: Completion) -> dict[str, Any]:
        """One completed choice."""
        message = {"role": "assistant", "content": done.text, "refusal": None}
        content = {"message": message} if self.chat else {"text": done.text}
        return self._choice(index, content, done.tokens, done.finish.value if done.finish else None)

    def whole(self, choices: list[dict[str, Any]], counts: dict[str, int], prompt: list[int]) -> dict[str, Any]:
        extra = {"prompt_token_ids": prompt} if self.token_ids else {}
        return {**self.head, "object": self.kind, "choices": choices, "usage": counts, **extra}

    def chunk(self, index: int, delta: Delta, first: bool = False) -> dict[str, Any]:
        """One stream event for one choice."""
        message: dict[str, Any] = {"role": "assistant"} if first else {}
        content = {"delta": message | {"content": delta.text}} if self.chat else {"text": delta.text}
        return self._event([self._choice(index, content, delta.tokens, delta.finish.value if delta.finish else None)])

    def last(self, counts: dict[str, int]) -> dict[str, Any]:
        """The event that carries the usage, after all choices have ended."""
        return {**self._event([]), "usage": counts}

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.head, "object": "chat.completion.chunk" if self.chat else self.kind, "choices": choices}
