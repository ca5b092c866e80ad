"""One request, streamed: when each piece of its answer came."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from serve.bench.load import Ask


@dataclass
class Timing:
    """Of one request, in seconds from `start`; `error` says why it was not answered whole."""

    start: float
    first: float = 0.0
    end: float = 0.0
    gaps: list[float] = field(default_factory=list)
    """Between two pieces of one sample; a piece may hold several tokens."""
    input: int = 0
    output: int = 0
    """Tokens of all samples, as the server counts them."""
    samples: int = 1
    error: str = ""

    @property
    def ttft(self) -> float:
        return self.first - self.start

    @property
    def latency(self) -> float:
        return self.end - self.start

    @property
    def tpot(self) -> float:
        """Seconds a token after the first, of a sample."""
        later = self.output / self.samples - 1
        return (self.end - self.first) / later if later > 0 else 0.0


async def ask(client: httpx.AsyncClient, path: str, one: Ask) -> Timing:
    """Send a request and read its stream to the end; what goes wrong is told in the timing."""
    timing = Timing(time.perf_counter(), samples=one.body.get("n", 1))
    try:
        async with client.stream("POST", path, json=one.body) as answer:
            if answer.status_code != httpx.codes.OK:
                text = (await answer.aread()).decode(errors="replace")
                timing.error = f"{answer.status_code}: {text[:500]}"
                return timing
            await _read(answer, timing)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
        timing.error = f"{type(error).__name__}: {error}"
    if not timing.error and (timing.first == 0.0 or timing.output == 0):
        timing.error = "the stream ended without a token, or without the usage that was asked for"
    return timing


async def _read(answer: httpx.Response, timing: Timing) -> None:
    last: dict[int, float] = {}
    async for line in answer.aiter_lines():
        if not line.startswith("data:") or (text := line[5:].strip()) == "[DONE]":
            continue
        event: dict[str, Any] = json.loads(text)
        now = time.perf_counter()
        if "error" in event:
            timing.error = json.dumps(event["error"])[:500]
            return
        for choice in event.get("choices") or ():
            if not (_shows(choice) or choice.get("finish_reason")):
                continue
            timing.first, timing.end = timing.first or now, now
            if choice["index"] in last and _shows(choice):
                timing.gaps.append(now - last[choice["index"]])
            last[choice["index"]] = now
        if usage := event.get("usage"):
            timing.input, timing.output = int(usage["prompt_tokens"]), int(usage["completion_tokens"])


def _shows(choice: dict[str, Any]) -> bool:
    """Whether an event brings text: the first of a chat names the role alone, the last why it ended."""
    delta = choice.get("delta") or {}
    return bool(choice.get("text") or any(delta.get(key) for key in ("content", "reasoning", "reasoning_content")))
