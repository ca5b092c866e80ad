"""Completions from any OpenAI-compatible server: one request per problem, the missing ones asked for singly.

Seeds follow from (seed, task, sample) alone, so that a run that was cut off asks again for exactly what it lacks.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import httpx

from common.benchmark.problems import Problem
from common.errors import UserError
from eval.benchmarks.prompts import Message, plain
from eval.config import EvalConfig
from eval.journal import Sample

TRIES = 6
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}


def seed_of(seed: int, task_id: str, sample: int | None = None) -> int:
    """A seed of 31 bits for a problem's request (`sample` None) or for one sample asked for singly."""
    text = f"{seed}/{task_id}" if sample is None else f"{seed}/{task_id}/{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class _Retry(Exception):
    """This attempt failed in a way that another may not; `pause` is what the server asked for."""

    def __init__(self, why: str, pause: float | None = None):
        super().__init__(why)
        self.pause = pause


class _BadRequest(Exception):
    pass


@dataclass(frozen=True)
class Choice:
    text: str
    finish_reason: str | None
    request_choices: int
    request_tokens: int | None


def _choices(body: Any) -> list[Choice]:
    """Read a response; raises _Retry for one that is not what the protocol promises."""
    try:
        tokens = (body.get("usage") or {}).get("completion_tokens")
        found = sorted(enumerate(body["choices"]), key=lambda pair: pair[1].get("index", pair[0]))
        texts = [(choice["message"].get("content") or "", choice.get("finish_reason")) for _, choice in found]
    except (AttributeError, KeyError, TypeError) as error:
        raise _Retry(f"a response without choices or messages ({error!r})") from None
    if not texts:
        raise _Retry("a response with no choices")
    return [Choice(text, reason, len(texts), tokens) for text, reason in texts]


def _pause_of(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


class Client:
    """Asks one or several replicas of a server, at most `concurrency` requests in flight."""

    def __init__(
        self,
        endpoints: str,
        model: str,
        config: EvalConfig,
        messages: Callable[[Problem], list[Message]] = plain,
    ):
        self.urls = [url.strip().rstrip("/") for url in endpoints.split(",") if url.strip()]
        for url in self.urls or [""]:
            if not url.startswith(("http://", "https://")):
                raise UserError(
                    f"not a server's address: {url!r}", where="endpoint", fix="give one like http://127.0.0.1:8000/v1"
                )
        self.model, self.config, self.messages = model, config, messages
        self.turns = 0
        self.room = asyncio.Semaphore(config.concurrency)
        key = os.environ.get("OPENAI_API_KEY")
        self.http = httpx.AsyncClient(
            timeout=httpx.Timeout(config.request_timeout_s, connect=10.0),
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def _post(self, url: str, payload: dict[str, Any]) -> list[Choice]:
        try:
            response = await self.http.post(f"{url}/chat/completions", json=payload)
        except httpx.TransportError as error:
            raise _Retry(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        if response.status_code in _RETRIED:
            raise _Retry(f"HTTP {response.status_code}", _pause_of(response))
        if response.status_code in (401, 403):
            raise UserError(
                f"the server refused the credentials (HTTP {response.status_code})",
                where=url,
                fix="set OPENAI_API_KEY to a key that it accepts",
            )
        if response.status_code != 200:
            raise _BadRequest(f"HTTP {response.status_code}: {response.text[:500]}")
        try:
            return _choices(response.json())
        except ValueError:
            raise _Retry("a body that is not JSON") from None

    async def _ask(self, payload: dict[str, Any]) -> list[Choice]:
        """Post until an answer comes; other replicas are tried in turn."""
        url, why = self.urls[0], ""
        for attempt in range(TRIES):
            self.turns += 1
            url = self.urls[self.turns % len(self.urls)]
            try:
                async with self.room:
                    return await self._post(url, payload)
            except _Retry as retry:
                why = str(retry)
                pause = retry.pause if retry.pause is not None else FIRST_PAUSE_S * 2**attempt
            if attempt + 1 < TRIES:
                await asyncio.sleep(min(pause, LONGEST_PAUSE_S))
        raise UserError(
            f"the server gave no usable answer in {TRIES} attempts; the last one: {why}",
            where=url,
            fix="check that it runs and is healthy, then run the same command again: samples so far are kept",
        )

    def _payload(self, problem: Problem, seed: int, n: int) -> dict[str, Any]:
        config = self.config
        return {
            "model": self.model,
            "messages": self.messages(problem),
            "n": n,
            "seed": seed,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_tokens,
        }

    async def _first(self, problem: Problem, seed: int) -> list[Choice]:
        """All samples in one request; a server that refuses `n` is asked for one."""
        n = self.config.samples
        try:
            return (await self._ask(self._payload(problem, seed, n)))[:n]
        except _BadRequest as refusal:
            if n > 1:
                try:
                    return (await self._ask(self._payload(problem, seed, 1)))[:1]
                except _BadRequest:
                    pass
            raise UserError(
                f"the server refused the request for {problem.task_id}: {refusal}",
                where=f"model {self.model!r} at {', '.join(self.urls)}",
                fix="check the model's name, eval.max_tokens and the server's limits",
            ) from None

    async def samples(self, problem: Problem, have: set[int]) -> list[Sample]:
        """The samples of a problem that `have` lacks, as rows of samples.jsonl."""
        together = seed_of(self.config.seed, problem.task_id)
        first = await self._first(problem, together)
        rows = [_row(problem, i, together, choice) for i, choice in enumerate(first) if i not in have]
        rest = [i for i in range(len(first), self.config.samples) if i not in have]
        return rows + list(await asyncio.gather(*(self._single(problem, i) for i in rest)))

    async def more(self, problem: Problem, wanted: Iterable[int]) -> list[Sample]:
        """Further samples of a problem, each asked for singly."""
        return list(await asyncio.gather(*(self._single(problem, i) for i in wanted)))

    async def _single(self, problem: Problem, sample: int) -> Sample:
        seed = seed_of(self.config.seed, problem.task_id, sample)
        try:
            return _row(problem, sample, seed, (await self._ask(self._payload(problem, seed, 1)))[0])
        except _BadRequest as refusal:
            raise UserError(f"the server refused a request it took before: {refusal}", where=problem.task_id) from None


def _row(problem: Problem, sample: int, seed: int, choice: Choice) -> Sample:
    return {
        "task_id": problem.task_id,
        "sample": sample,
        "seed": seed,
        "completion": choice.text,
        "finish_reason": choice.finish_reason,
        "request": {"choices": choice.request_choices, "completion_tokens": choice.request_tokens},
    }
