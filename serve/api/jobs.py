"""Between asyncio and the engine's thread: events are routed to the job (one HTTP request) that waits for them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

from models.text.detokenize import Detokenizer
from serve.api.protocol import Refusal
from serve.api.text import Completion, Delta
from serve.engine.engine import Engine, QueueFull
from serve.engine.request import Chunk, Event, Failed, Request, Sampling, Scores, Token


class Hub:
    """Owns request numbers and the queues of open jobs. Used on the event loop, `deliver` aside."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[int, asyncio.Queue[Event]] = {}
        self._numbers = itertools.count()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self.engine.deliver = loop, self.deliver
        self.engine.start()

    def deliver(self, events: list[Event]) -> None:
        """Called on the engine's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._route, events)

    def _route(self, events: list[Event]) -> None:
        for event in events:
            targets = list(self._queues.values()) if isinstance(event, Failed) else [self._queues.get(event.request)]
            for target in targets:
                if target is not None:
                    target.put_nowait(event)

    def submit(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, score: bool) -> "Job":
        """Queue one request per prompt; 429 when they do not fit, 503 when the engine is down."""
        if self.engine.error is not None:
            raise Refusal(503, f"the engine has stopped: {self.engine.error}")
        requests = [Request(next(self._numbers), tuple(prompt), n, sampling, score) for prompt in prompts]
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._queues.update((request.id, inbox) for request in requests)
        job = Job(self, requests, inbox)
        try:
            self.engine.submit(requests)
        except QueueFull:
            job.close()
            raise Refusal(429, "too many requests are waiting; try again later", code="queue_full") from None
        return job

    def forget(self, requests: Sequence[Request]) -> None:
        for request in requests:
            del self._queues[request.id]


class Job:
    """The completions of one HTTP request: choice number = prompt number * n + sample."""

    def __init__(self, hub: Hub, requests: list[Request], inbox: asyncio.Queue[Event]):
        self.hub, self.requests, self.inbox = hub, requests, inbox
        self.scores: dict[int, list[Token]] = {}
        self.completions: list[Completion] = []
        self._closed = False

    async def deltas(self, detokenizer: Detokenizer, stop: tuple[str, ...]) -> AsyncIterator[tuple[int, Delta]]:
        """What each choice gains, as it comes, until all have ended and all wanted scores are there."""
        numbers = {request.id: i for i, request in enumerate(self.requests)}
        n = self.requests[0].n
        samples = n if self.requests[0].sampling.max_tokens else 0
        self.completions = [Completion(detokenizer, stop) for _ in range(len(self.requests) * samples)]
        open_choices = len(self.completions) + (len(self.requests) if self.requests[0].score_prompt else 0)
        while open_choices:
            match await self.inbox.get():
                case Failed(reason):
                    raise Refusal(500, f"the engine failed: {reason}")
                case Scores(request, tokens):
                    self.scores[numbers[request]] = tokens
                    open_choices -= 1
                case Chunk() as chunk:
                    choice = numbers[chunk.request] * n + chunk.index
                    completion = self.completions[choice]
                    if completion.finish is not None:
                        continue
                    delta = completion.add(chunk)
                    if delta.finish is not None:
                        open_choices -= 1
                        if chunk.finish is None:
                            self.hub.engine.cancel(chunk.request, chunk.index)
                    yield choice, delta

    def close(self) -> None:
        """Stop whatever still runs; safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self.hub.forget(self.requests)
        done = self.completions and all(completion.finish for completion in self.completions)
        for request in [] if done else self.requests:
            self.hub.engine.cancel(request.id)
