"""Who runs next: a first-come queue of requests, and the slots that their samples occupy.

Samples join and leave between decode steps. A request's prompt is prefilled once however many samples it has; they take
slots as these fall free, so at most one request, the head of the queue, is ever partly placed. No array library here.
"""

from collections import deque
from dataclasses import dataclass, field

from serve.engine.request import Request, Sample


@dataclass(slots=True, eq=False)
class Waiting:
    """A queued request and those of its samples that have no slot yet."""

    request: Request
    samples: deque[int]
    started: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """A request whose samples enter slots now. `first`: its prompt must be run; `last`: nothing needs it after this."""

    request: Request
    samples: list[tuple[int, Sample]]
    first: bool
    last: bool


@dataclass(slots=True)
class Scheduler:
    """`slots` sequences are decoded together; after the first prompt of a step only as many more run as fit
    `prefill_tokens` together, so that running samples are not kept waiting for long."""

    slots: int
    prefill_tokens: int
    waiting: deque[Waiting] = field(default_factory=deque)
    running: dict[int, Sample] = field(default_factory=dict)
    free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.free = list(reversed(range(self.slots)))

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a request; one that wants no tokens gets no slot, only its turn."""
        self.waiting.append(Waiting(request, deque(range(request.n if request.sampling.max_tokens else 0))))

    def schedule(self) -> list[Admission]:
        """Give free slots to the head of the queue; the caller runs the prompts and then decodes `running`."""
        admissions: list[Admission] = []
        tokens = 0
        while self.waiting:
            head = self.waiting[0]
            cost = 0 if head.started else len(head.request.prompt)
            if (head.samples and not self.free) or (admissions and tokens + cost > self.prefill_tokens):
                break
            tokens += cost
            admissions.append(self._admit(head))
        return admissions

    def _admit(self, head: Waiting) -> Admission:
        first, head.started = not head.started, True
        placed: list[tuple[int, Sample]] = []
        while head.samples and self.free:
            slot = self.free.pop()
            self.running[slot] = Sample(head.request, head.samples.popleft())
            placed.append((slot, self.running[slot]))
        if not head.samples:
            self.waiting.popleft()
        return Admission(head.request, placed, first, last=not head.samples)

    def finish(self, slot: int) -> None:
        """The sample in `slot` is done."""
        del self.running[slot]
        self.free.append(slot)

    def cancel(self, request_id: int, index: int | None = None) -> int:
        """Drop a request's samples, or one of them, wherever they are; returns how many were dropped."""
        slots = [
            slot
            for slot, sample in self.running.items()
            if sample.request.id == request_id and index in (None, sample.index)
        ]
        for slot in slots:
            self.finish(slot)
        return len(slots) + sum(self._unqueue(entry, index) for entry in self._entries(request_id))

    def _entries(self, request_id: int) -> list[Waiting]:
        return [entry for entry in self.waiting if entry.request.id == request_id]

    def _unqueue(self, entry: Waiting, index: int | None) -> int:
        dropped = [i for i in entry.samples if index in (None, i)]
        entry.samples = deque(i for i in entry.samples if i not in dropped)
        if not entry.samples:
            self.waiting.remove(entry)
        return len(dropped)

    def check_integrity(self) -> None:
        """Raise AssertionError unless every slot is free or running exactly once and the queue is in order."""
        assert sorted([*self.free, *self.running]) == list(range(self.slots)), "a slot is lost or held twice"
        live = [(sample.request.id, sample.index) for sample in self.running.values()]
        queued = [(entry.request.id, i) for entry in self.waiting for i in entry.samples]
        assert len({*live, *queued}) == len(live) + len(queued), "a sample stands in two places"
        assert not any(entry.started for entry in list(self.waiting)[1:]), "a request overtook the head of the queue"
