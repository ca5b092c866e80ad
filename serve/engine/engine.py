"""The inference engine: continuous batching over fixed slots, in a thread of its own.

Its step is three lines: schedule, run, post-process. It knows tokens only; text, stop strings and HTTP are not here.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax

from serve.engine.definitions import Drawn, empty_slots
from serve.engine.metrics import Metrics
from serve.engine.programs import Prefilled, Programs
from serve.engine.request import Chunk, Event, Failed, Finish, Request, Sample, Scores, Token
from serve.engine.scheduler import Admission, Scheduler

Deliver = Callable[[list[Event]], None]
LOW_WORD = 0xFFFFFFFF


class QueueFull(Exception):
    """More requests are waiting than the engine agreed to hold."""


class Cancel:
    """Drop a request, or one sample of it."""

    def __init__(self, request: int, index: int | None):
        self.request, self.index = request, index


class Stop:
    """The engine thread ends."""


class Dispatch(NamedTuple):
    """Tokens that the device draws, and the samples that they are drawn for, by slot."""

    drawn: Drawn
    samples: dict[int, Sample]


class Engine:
    """Takes requests from any thread; events go to `deliver`, on the engine's thread, as soon as they are known."""

    def __init__(
        self, programs: Programs, scheduler: Scheduler, *, max_waiting: int, metrics: Metrics, deliver: Deliver
    ):
        self.programs, self.scheduler, self.max_waiting = programs, scheduler, max_waiting
        self.metrics, self.deliver = metrics, deliver
        self.error: Exception | None = None
        self._slots = empty_slots(programs.slots)
        self._under_way: Dispatch | None = None
        self._prefilled: dict[int, Prefilled] = {}
        self._arrived: dict[int, float] = {}
        self._delivered: dict[int, float] = {}
        self._commands: queue.SimpleQueue[Request | Cancel | Stop] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, requests: Iterable[Request]) -> None:
        """Queue requests together; raises QueueFull when they do not all fit."""
        batch = list(requests)
        if len(self.scheduler.waiting) + self._commands.qsize() + len(batch) > self.max_waiting:
            raise QueueFull
        for request in batch:
            self._commands.put(request)

    def cancel(self, request: int, index: int | None = None) -> None:
        """Drop a request or one of its samples; unknown and finished ones are let be."""
        self._commands.put(Cancel(request, index))

    def stop(self) -> None:
        """End the thread after its current step and wait for it."""
        self._commands.put(Stop())
        self._thread.join()

    def _loop(self) -> None:
        try:
            while self._listen():
                self.step()
        except Exception as error:
            self.error = error
            self.deliver([Failed(str(error))])

    def step(self) -> None:
        """Admit what fits and send the device its next tokens' work; while it runs, deliver what it drew before."""
        self._admit(self.scheduler.schedule())
        before, self._under_way = self._under_way, self._dispatch()
        self._post_process(before)

    def _listen(self) -> bool:
        """Obey the commands that have come in; with nothing to run, wait for one. False: stop."""
        while not self._commands.empty() or not self._busy():
            if not self._obey(self._commands.get()):
                return False
        return True

    def pending(self) -> bool:
        """Obey the commands that have come in; is anything left to run?"""
        while not self._commands.empty():
            self._obey(self._commands.get())
        return self.scheduler.busy

    def _obey(self, command: Request | Cancel | Stop) -> bool:
        match command:
            case Stop():
                return False
            case Cancel():
                self._cancel(command)
            case Request():
                self._add(command)
        return True

    def _busy(self) -> bool:
        if not self.scheduler.busy:
            self.scheduler.check_integrity()
            self._gauge()
        return self.scheduler.busy

    def _add(self, request: Request) -> None:
        self._arrived[request.id] = time.monotonic()
        self.scheduler.add(request)
        self.metrics.requests.inc()
        self.metrics.prompt_tokens.inc(len(request.prompt))

    def _cancel(self, cancel: Cancel) -> None:
        dropped = self.scheduler.cancel(cancel.request, cancel.index)
        self._slots.in_use[self.scheduler.free] = False
        self.metrics.finished.labels("cancelled").inc(dropped)
        if not any(entry.request.id == cancel.request for entry in self.scheduler.waiting):
            self._prefilled.pop(cancel.request, None)
            self._arrived.pop(cancel.request, None)

    def _admit(self, admissions: list[Admission]) -> None:
        """Run the prompts of the admitted requests, once each, and fill the slots of their samples."""
        for admission in admissions:
            request = admission.request
            if admission.first:
                self._prefilled[request.id] = self.programs.prefill(request.prompt)
                self.metrics.prefills.inc()
            for slot, sample in admission.samples:
                self._place(slot, sample)
            if admission.first and request.score_prompt:
                self.deliver([Scores(request.id, _tokens(self.programs.score(self._prefilled[request.id])))])
            if not request.sampling.max_tokens:
                del self._arrived[request.id]
            if admission.last:
                del self._prefilled[request.id]

    def _place(self, slot: int, sample: Sample) -> None:
        """Fill the slot; the sample begins where the last token of its prompt is yet to be run."""
        slots, request, rows = self._slots, sample.request, self._slots.rows
        sampling, sample.position = request.sampling, len(request.prompt) - 1
        slots.token[slot], slots.position[slot] = request.prompt[-1], sample.position
        slots.limit[slot], slots.ignore_end[slot] = request.limit, sampling.ignore_end
        slots.entering[slot] = slots.in_use[slot] = True
        rows.temperature[slot], rows.top_p[slot], rows.sample[slot] = sampling.temperature, sampling.top_p, sample.index
        rows.seed_high[slot], rows.seed_low[slot] = sampling.seed >> 32 & LOW_WORD, sampling.seed & LOW_WORD
        self.programs.place(self._prefilled[request.id], slot)

    def _dispatch(self) -> Dispatch | None:
        """The next tokens of every running sample, unless all end with those under way."""
        coming = set() if self._under_way is None else set(self._under_way.samples.values())
        ahead = self.programs.steps
        samples = {
            slot: sample
            for slot, sample in self.scheduler.running.items()
            if sample.position + (ahead if sample in coming else 0) + 1 < sample.request.limit
        }
        if not samples:
            return None
        drawn = self.programs.decode(self._slots)
        self._slots.entering[:] = False
        self.metrics.steps.inc()
        return Dispatch(drawn, samples)

    def _post_process(self, dispatch: Dispatch | None) -> None:
        """Cut each sample's new tokens at its end, free the slots of those that ended, and deliver the rest."""
        if dispatch is None:
            return
        drawn: Drawn = jax.device_get(dispatch.drawn)
        now = time.monotonic()
        events: list[Event] = []
        for slot, sample in dispatch.samples.items():
            if self.scheduler.running.get(slot) is not sample:
                continue
            kept, finish = self._until_end(sample, _tokens(Drawn(*(a[:, slot] for a in drawn))))
            events.append(Chunk(sample.request.id, sample.index, kept, finish))
            self._measure(slot, sample, len(kept), now)
            if finish is not None:
                self._slots.in_use[slot] = False
                self.scheduler.finish(slot)
                self.metrics.finished.labels(finish.value).inc()
        self._gauge()
        if events:
            self.deliver(events)

    def _until_end(self, sample: Sample, tokens: list[Token]) -> tuple[list[Token], Finish | None]:
        for count, token in enumerate(tokens, 1):
            sample.position += 1
            if token.id in self.programs.eos_ids and not sample.request.sampling.ignore_end:
                return tokens[:count], Finish.STOP
            if sample.position + 1 >= sample.request.limit:
                return tokens[:count], Finish.LENGTH
        return tokens, None

    def _measure(self, slot: int, sample: Sample, count: int, now: float) -> None:
        arrived = self._arrived.pop(sample.request.id, None)
        if arrived is not None:
            self.metrics.ttft.observe(now - arrived)
        if count and sample.position >= len(sample.request.prompt) + count:
            self.metrics.itl.observe((now - self._delivered[slot]) / count)
        self._delivered[slot] = now
        self.metrics.tokens.inc(count)

    def _gauge(self) -> None:
        self.metrics.running.set(len(self.scheduler.running))
        self.metrics.waiting.set(len(self.scheduler.waiting))


def _tokens(drawn: Drawn) -> list[Token]:
    return [Token(*values) for values in zip(*(array.tolist() for array in drawn), strict=True)]


def generate(engine: Engine, requests: list[Request]) -> list[list[Token]]:
    """Run requests to their end on an engine whose thread is not started; tokens of each sample, in order."""
    drawn: dict[tuple[int, int], list[Token]] = {(r.id, i): [] for r in requests for i in range(r.n)}

    def collect(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Chunk):
                drawn[event.request, event.index].extend(event.tokens)

    engine.deliver = collect
    engine.submit(requests)
    while engine.pending():
        engine.step()
    return list(drawn.values())
