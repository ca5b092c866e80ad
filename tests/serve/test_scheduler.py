"""The scheduler keeps its books whatever comes: no array library, so thousands of steps take no time."""

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.engine.request import Request, Sampling
from serve.engine.scheduler import Scheduler


def request(number: int, n: int = 1, length: int = 3, max_tokens: int = 5) -> Request:
    return Request(number, (7,) * length, n, Sampling(max_tokens=max_tokens))


operation = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 6), st.integers(1, 20)),
    st.tuples(st.just("finish"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 30), st.sampled_from([None, 0, 1, 2])),
    st.tuples(st.just("schedule"), st.just(0), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(slots=st.integers(1, 5), operations=st.lists(operation, max_size=60))
def test_books_balance(slots: int, operations: list[tuple[str, int, int | None]]) -> None:
    scheduler = Scheduler(slots, prefill_tokens=25)
    added, prefilled, served = 0, [], []
    for what, number, detail in operations:
        match what:
            case "add":
                scheduler.add(request(added, number, detail or 1))
                added += 1
            case "finish" if scheduler.running:
                running = sorted(scheduler.running)
                scheduler.finish(running[number % len(running)])
            case "cancel":
                scheduler.cancel(number, detail)
            case "schedule":
                admissions = scheduler.schedule()
                prefilled += [a.request.id for a in admissions if a.first]
                served += [(a.request.id, sample.index) for a in admissions for _, sample in a.samples]
        scheduler.check_integrity()
    assert len(prefilled) == len(set(prefilled)), "a prompt ran twice"
    assert prefilled == sorted(prefilled), "a request overtook another"
    assert len(served) == len(set(served)), "a sample ran twice"
    while scheduler.busy:
        scheduler.schedule()
        for slot in list(scheduler.running):
            scheduler.finish(slot)
    scheduler.check_integrity()


def test_samples_of_one_request_take_slots_as_they_fall_free() -> None:
    scheduler = Scheduler(2, prefill_tokens=100)
    scheduler.add(request(0, n=3))
    (first,) = scheduler.schedule()
    assert (first.first, first.last, [sample.index for _, sample in first.samples]) == (True, False, [0, 1])
    assert scheduler.schedule() == []
    scheduler.finish(first.samples[0][0])
    (second,) = scheduler.schedule()
    assert (second.first, second.last, [sample.index for _, sample in second.samples]) == (False, True, [2])


def test_a_step_runs_no_more_prompts_than_agreed() -> None:
    scheduler = Scheduler(8, prefill_tokens=10)
    for number in range(4):
        scheduler.add(request(number, length=5))
    assert [a.request.id for a in scheduler.schedule()] == [0, 1]
    scheduler.add(request(9, length=50))
    assert [a.request.id for a in scheduler.schedule()] == [2, 3]
    assert [a.request.id for a in scheduler.schedule()] == [9]


def test_a_request_for_no_tokens_needs_no_slot() -> None:
    scheduler = Scheduler(1, prefill_tokens=100)
    scheduler.add(request(0))
    scheduler.schedule()
    scheduler.add(request(1, max_tokens=0))
    (admission,) = scheduler.schedule()
    assert (admission.request.id, admission.samples, admission.last) == (1, [], True)


def test_no_array_library_is_loaded() -> None:
    code = "import sys, serve.engine.scheduler; print([m for m in ('jax', 'numpy', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
