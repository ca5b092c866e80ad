"""Between asyncio and the engine's thread: events are routed to the job (one HTTP request) that waits for them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

from models.text.detokenize import Detokenizer
from serve.api.errors import Refusal, bad_value
from serve.api.text import Completion, Delta
from serve.engine.engine import Engine, QueueFull
from serve.engine.request import Chunk, Event, Failed, Request, Sampling, Scores, Token

EXPIRED = "the server is shutting down"


class Hub:
    """Owns request numbers and the queues of open jobs. Used on the event loop, `deliver` aside.

    What is open is counted in samples, whatever request or prompt they belong to: the engine runs `slots` of them
    together, `max_waiting` more may wait.
    """

    def __init__(self, engine: Engine, max_waiting: int):
        self.engine, self.max_waiting = engine, max_waiting
        self.draining = False
        self._jobs: set[Job] = set()
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
        """Queue one request per prompt; 400 when they never fit, 429 when they do not now, 503 when we are ending."""
        if self.engine.error is not None:
            raise Refusal(503, f"the engine has stopped: {self.engine.error}")
        if self.draining:
            raise Refusal(503, "the server is shutting down", code="shutting_down")
        self.check_size(len(prompts), n)
        room = self.engine.programs.slots + self.max_waiting - sum(job.open for job in self._jobs)
        if len(prompts) * n > room:
            raise Refusal(429, "too many samples are waiting; try again later", code="queue_full")
        requests = [Request(next(self._numbers), tuple(prompt), n, sampling, score) for prompt in prompts]
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._queues.update((request.id, inbox) for request in requests)
        job = Job(self, requests, inbox)
        self._jobs.add(job)
        try:
            self.engine.submit(requests)
        except QueueFull:
            job.close()
            raise Refusal(429, "too many requests are waiting; try again later", code="queue_full") from None
        return job

    def check_size(self, prompts: int, n: int) -> None:
        """Refuse for good what even an idle server has no room for."""
        if prompts * n > self.max_waiting:
            what = f"{prompts} prompts with n {n} are {prompts * n} samples; this server takes at most"
            raise bad_value(f"{what} {self.max_waiting} in a request", "prompt" if prompts > 1 else "n")

    @property
    def idle(self) -> bool:
        return not self._jobs

    def expire(self) -> None:
        """End what is still open: the time to drain is over."""
        for job in self._jobs:
            job.inbox.put_nowait(Failed(EXPIRED))

    def forget(self, job: "Job") -> None:
        self._jobs.discard(job)
        for request in job.requests:
            del self._queues[request.id]


class Job:
    """The completions of one HTTP request: choice number = prompt number * n + sample."""

    def __init__(self, hub: Hub, requests: list[Request], inbox: asyncio.Queue[Event]):
        self.hub, self.requests, self.inbox = hub, requests, inbox
        self.scores: dict[int, list[Token]] = {}
        self.completions: list[Completion] = []
        self.open = len(requests) * requests[0].n
        """Samples that have not ended."""
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
                    raise Refusal(503, reason if reason == EXPIRED else f"the engine has stopped: {reason}")
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
                        self.open -= 1
                        if chunk.finish is None:
                            self.hub.engine.cancel(chunk.request, chunk.index)
                    yield choice, delta

    def close(self) -> None:
        """Stop whatever still runs; safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self.hub.forget(self)
        done = self.completions and all(completion.finish for completion in self.completions)
        for request in [] if done else self.requests:
            self.hub.engine.cancel(request.id)
