"""Texts and conversations to token ids, in threads of their own: the event loop never tokenises.

A text that is too long for the model by its characters alone is refused unread.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from transformers import PreTrainedTokenizerFast

from models.text.prompt import prompt_ids
from serve.api.errors import Refusal, bad_value, shown
from serve.api.protocol import ChatMessage

THREADS = 2
SLACK = 4
"""Characters that a tokenizer's normaliser may make one of (NFC composes)."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Model:
    """What the endpoints need to know about the model that is served."""

    name: str
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    vocabulary_size: int
    created: int


class Prompts:
    """Token ids of what clients send, checked against the model's vocabulary and length."""

    def __init__(self, model: Model):
        self.model = model
        self._longest = SLACK * max(len(token) for token in model.tokenizer.get_vocab())
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prompts")

    async def apart(self, work: Callable[..., Result], *given: object) -> Result:
        """Run something slow off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        plain = [message.plain() for message in messages]
        self._check_characters(sum(len(message["content"]) for message in plain), "messages")
        return await self.apart(prompt_ids, self.model.tokenizer, plain)

    async def texts(self, given: Sequence[str | list[int]], special: bool = True) -> list[list[int]]:
        """Ids of each prompt; those given as ids are taken as they are."""
        for prompt in given:
            if isinstance(prompt, str):
                self._check_characters(len(prompt), "prompt")
        texts = [prompt for prompt in given if isinstance(prompt, str)]
        found = iter(await self.apart(self._encode, texts, special) if texts else [])
        return [next(found) if isinstance(prompt, str) else prompt for prompt in given]

    def _encode(self, texts: list[str], special: bool) -> list[list[int]]:
        backend = self.model.tokenizer.backend_tokenizer
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=special)]

    def check_ids(self, tokens: Sequence[int], param: str) -> None:
        if not all(0 <= token < self.model.vocabulary_size for token in tokens):
            raise bad_value(f"{param}: an id outside the vocabulary of {self.model.vocabulary_size}", param)

    def check_room(self, prompt: Sequence[int], most: int | None, param: str, asked: str) -> None:
        """`param` holds the prompt, `asked` the limit of tokens: whichever is at fault is named."""
        length = self.model.max_length
        if not prompt:
            raise bad_value(f"{param}: the prompt is empty", param)
        if len(prompt) > length - (1 if most is None or most else 0):
            what = f"{param}: the prompt has {len(prompt)} tokens; this server's limit is {length}, answer included"
            raise bad_value(what, param, "context_length_exceeded")
        if most is not None and len(prompt) + most > length:
            what = f"{asked}: {len(prompt)} tokens of prompt and {most} of answer are more than this server's {length}"
            raise bad_value(what, asked, "context_length_exceeded")

    def _check_characters(self, count: int, param: str) -> None:
        most = self._longest * self.model.max_length
        if count > most:
            what = f"{param}: {count} characters are more than {self.model.max_length} tokens can hold"
            raise bad_value(what, param, "context_length_exceeded")

    def check_name(self, name: str | None) -> None:
        if name is not None and name != self.model.name:
            raise unknown_model(name, self.model.name)


def unknown_model(name: str, served: str) -> Refusal:
    what = f"the model {shown(name)} is not served here; {served!r} is"
    return Refusal(404, what, param="model", code="model_not_found")
