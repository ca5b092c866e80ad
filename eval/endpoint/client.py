"""Completions from any OpenAI-compatible server: one request per problem, the missing ones asked for singly.

Seeds follow from (seed, task, sample) alone, so that a run that was cut off asks again for exactly what it lacks.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, Self

import httpx

from common.benchmark.problems import Problem
from common.errors import UserError
from common.progress import log
from eval.benchmarks.prompts import Message, plain
from eval.config import EvalConfig
from eval.endpoint.limits import check_room, offer
from eval.endpoint.reply import RETRIED, Choice, Retry, Unusable, choices_of, error_of, parsed
from eval.journal import Sample

TRIES = 6
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0
_OPTIONAL = ("seed", "temperature", "top_p")
"""Parameters that a run can do without, where a server refuses them by name."""
_UNKNOWN = re.compile(
    r"unsupported|not? support|unknown|unrecogni[sz]ed|unexpected|extra (?:inputs|fields)|not permitted|not allowed"
    r"|extra_forbidden|does not accept|deprecated",
    re.IGNORECASE,
)


def seed_of(seed: int, task_id: str, sample: int | None = None) -> int:
    """A seed of 31 bits for a problem's request (`sample` None) or for one sample asked for singly."""
    text = f"{seed}/{task_id}" if sample is None else f"{seed}/{task_id}/{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class _BadRequest(Exception):
    """The server refused a request (HTTP `status`); `parameter` is what it names as the cause."""

    def __init__(self, status: int, words: str, parameter: str | None = None):
        super().__init__(f"HTTP {status}: {words}")
        self.status, self.words, self.parameter = status, words, parameter


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
        first_pause_s: float = FIRST_PAUSE_S,
    ):
        self.urls = [url.strip().rstrip("/") for url in endpoints.split(",") if url.strip()]
        for url in self.urls or [""]:
            if not url.startswith(("http://", "https://")):
                raise UserError(
                    f"not a server's address: {url!r}", where="endpoint", fix="give one like http://127.0.0.1:8000/v1"
                )
        self.model, self.config, self.messages = model, config, messages
        self.first_pause_s, self.turns = first_pause_s, 0
        self.left_out: list[str] = []
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

    async def check(self, problems: tuple[Problem, ...]) -> None:
        """Ask each server what it can take, before any completion is asked for; UserError where that is too little."""
        for url in self.urls:
            await check_room(self.http, url, self.model, problems, self.messages, self.config.max_tokens)

    async def _post(self, url: str, payload: dict[str, Any]) -> list[Choice]:
        try:
            response = await self.http.post(f"{url}/chat/completions", json=payload)
        except httpx.TransportError as error:
            raise Retry(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        status = response.status_code
        if status in RETRIED:
            raise Retry(f"HTTP {status}", _pause_of(response))
        if status in (401, 403):
            raise UserError(
                f"the server refused the credentials (HTTP {status})",
                where=url,
                fix="set OPENAI_API_KEY to a key that it accepts",
            )
        if status != 200:
            try:
                words, parameter, _ = error_of(parsed(response))
            except Retry as no_json:
                words, parameter = str(no_json), None
            raise _BadRequest(status, words, parameter)
        try:
            return choices_of(parsed(response))
        except Unusable as odd:
            raise UserError(
                f"the server's answer cannot be used: {odd}",
                where=f"model {self.model!r} at {url}",
                fix="check the server; samples so far are kept",
            ) from None

    async def _ask(self, problem: Problem, seed: int, n: int) -> list[Choice]:
        """Post until an answer comes; other replicas are tried in turn. What the server does not know is left out."""
        while True:
            refused_before = tuple(self.left_out)
            try:
                return await self._retried(self._payload(problem, seed, n))
            except _BadRequest as refusal:
                if tuple(self.left_out) == refused_before and not self._adapt(refusal):
                    raise

    async def _retried(self, payload: dict[str, Any]) -> list[Choice]:
        url, why = self.urls[0], ""
        for attempt in range(TRIES):
            self.turns += 1
            url = self.urls[self.turns % len(self.urls)]
            try:
                async with self.room:
                    return await self._post(url, payload)
            except Retry as retry:
                why = str(retry)
                pause = retry.pause if retry.pause is not None else self.first_pause_s * 2**attempt
            if attempt + 1 < TRIES:
                await asyncio.sleep(min(pause, LONGEST_PAUSE_S))
        raise UserError(
            f"the server gave no usable answer in {TRIES} attempts; the last one: {why}",
            where=url,
            fix="check that it runs and is healthy, then run the same command again: samples so far are kept",
        )

    def _adapt(self, refusal: _BadRequest) -> bool:
        """Leave out, or rename, the parameter that the server refuses by name; False where it names none of those."""
        words, named = refusal.words, refusal.parameter
        if not _UNKNOWN.search(words) and named != "seed":
            return False
        known = [name for name in ("max_tokens", *_OPTIONAL) if name not in self.left_out]
        if named not in known:
            named = next((name for name in known if re.search(rf"(?<!\w){name}(?!\w)", words)), None)
        if named is None:
            return False
        self.left_out.append(named)
        if named == "max_tokens":
            log("the server takes max_completion_tokens in place of max_tokens")
        else:
            means = "samples cannot be drawn again alike" if named == "seed" else "its own value is used"
            log(f"warning: the server does not take {named}: {means}")
        return True

    def _payload(self, problem: Problem, seed: int, n: int) -> dict[str, Any]:
        config = self.config
        limit = "max_completion_tokens" if "max_tokens" in self.left_out else "max_tokens"
        payload = {
            "model": self.model,
            "messages": self.messages(problem),
            "n": n,
            "seed": seed,
            "temperature": config.temperature,
            "top_p": config.top_p,
            limit: config.max_tokens,
        }
        return {name: value for name, value in payload.items() if name not in self.left_out}

    async def _first(self, problem: Problem, seed: int) -> list[Choice]:
        """All samples in one request; a server that refuses `n` is asked for one."""
        n = self.config.samples
        try:
            return (await self._ask(problem, seed, n))[:n]
        except _BadRequest as refusal:
            if n > 1 and refusal.status != 404:
                try:
                    return (await self._ask(problem, seed, 1))[:1]
                except _BadRequest:
                    pass
            raise await self._refused(f"the request for {problem.task_id}", refusal) from None

    async def _refused(self, what: str, refusal: _BadRequest) -> UserError:
        offered = (await offer(self.http, self.urls[0], self.model)).models
        fix = "check the model's name, eval.max_tokens and the server's limits"
        if refusal.status == 404 and offered and self.model not in offered:
            fix = f"ask for a model that it serves: {', '.join(offered[:5])}"
        elif refusal.status == 404 and not offered:
            fix = "check the address (most end in /v1) and the model's name"
        return UserError(
            f"the server refused {what}: {refusal}", where=f"model {self.model!r} at {', '.join(self.urls)}", fix=fix
        )

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
            return _row(problem, sample, seed, (await self._ask(problem, seed, 1))[0])
        except _BadRequest as refusal:
            raise await self._refused(f"a request for one more sample of {problem.task_id}", refusal) from None


def _row(problem: Problem, sample: int, seed: int, choice: Choice) -> Sample:
    row = {
        "task_id": problem.task_id,
        "sample": sample,
        "seed": seed,
        "completion": choice.text,
        "finish_reason": choice.finish_reason,
        "request": {"choices": choice.request_choices, "completion_tokens": choice.request_tokens},
    }
    return row if choice.empty is None else row | {"empty": choice.empty}
