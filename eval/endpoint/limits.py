"""What a server says it can take, asked before the first request: the models it serves, and its longest context.

GET /v1/models (`max_model_len` of vLLM and tapeout, others' `context_length` and kin) and POST /tokenize (vLLM), where
offered; a server that says nothing is asked, and its refusal is the answer.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from common.benchmark.problems import Problem
from common.errors import UserError
from eval.benchmarks.prompts import Message
from eval.endpoint.reply import Retry, parsed

_LIMITS = ("max_model_len", "context_length", "max_context_length", "context_window")
_TEMPLATE_TOKENS = 256
"""Room for the chat template's own tokens, when bytes stand for tokens (no token is less than a byte)."""
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Offer:
    """The names a server lists, and the longest context (prompt and answer, in tokens) of the model that is asked."""

    models: tuple[str, ...] = ()
    context: int | None = None


async def offer(http: httpx.AsyncClient, url: str, model: str) -> Offer:
    """What GET /models says; an empty offer where it says nothing that can be read."""
    try:
        response = await http.get(f"{url}/models", timeout=_PATIENCE_S)
        rows = parsed(response)["data"] if response.status_code == 200 else []
        named = {str(row["id"]): row for row in rows}
    except (httpx.HTTPError, Retry, KeyError, TypeError):
        return Offer()
    row = named.get(model) or (next(iter(named.values())) if len(named) == 1 else {})
    found = [row[key] for key in _LIMITS if isinstance(row.get(key), int) and row[key] > 0]
    return Offer(tuple(named), found[0] if found else None)


async def _tokens(http: httpx.AsyncClient, url: str, model: str, messages: list[Message]) -> int | None:
    """How many tokens a prompt has, the template's own among them; None where the server does not say."""
    try:
        asked = {"model": model, "messages": messages}
        response = await http.post(f"{url.removesuffix('/v1')}/tokenize", json=asked, timeout=_PATIENCE_S)
        count = parsed(response).get("count") if response.status_code == 200 else None
    except (httpx.HTTPError, Retry, AttributeError):
        return None
    return count if isinstance(count, int) else None


def _bytes(messages: list[Message]) -> int:
    return sum(len(message["content"].encode("utf-8", "replace")) for message in messages)


async def check_room(
    http: httpx.AsyncClient,
    url: str,
    model: str,
    problems: tuple[Problem, ...],
    word: Callable[[Problem], list[Message]],
    max_tokens: int,
) -> None:
    """UserError where the server says that a prompt and `max_tokens` are more than it takes."""
    context = (await offer(http, url, model)).context
    if context is None:
        return
    where = f"model {model!r} at {url}"
    if max_tokens >= context:
        fix = f"lower eval.max_tokens below {context}, or serve the model with a longer context"
        raise UserError(f"eval.max_tokens is {max_tokens}, and the server takes {context} in all", where=where, fix=fix)
    long = [p for p in problems if _bytes(word(p)) + _TEMPLATE_TOKENS + max_tokens > context]
    if not long:
        return
    at_once = asyncio.Semaphore(8)

    async def count(problem: Problem) -> int | None:
        async with at_once:
            return await _tokens(http, url, model, word(problem))

    longest = max(long, key=lambda p: _bytes(word(p)))
    if await count(longest) is None:
        return
    counts: list[Any] = await asyncio.gather(*map(count, long))
    over = [(n, p.task_id) for n, p in zip(counts, long, strict=True) if n is not None and n + max_tokens > context]
    if over:
        most, task = max(over)
        raise UserError(
            f"{len(over)} prompts are too long: {task} has {most} tokens, and with eval.max_tokens {max_tokens} the "
            f"server's {context} do not hold them",
            where=where,
            fix=f"serve the model with a context of at least {most + max_tokens} tokens"
            + (f", or lower eval.max_tokens to {context - most}" if context > most else ""),
        )
