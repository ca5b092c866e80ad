"""Stage 5: ask for completions, simulate each while the next are still being decoded, and write the score.

A run that was cut off finds its samples and verdicts in the journals and does only what is missing.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from common.benchmark.problems import Problem
from common.errors import UserError
from common.files import write_json
from common.progress import Bar, bar, log
from eval.benchmarks.graded import GradedBenchmark, open_benchmark
from eval.benchmarks.prompts import digest
from eval.benchmarks.stored import load_completions
from eval.config import EvalConfig, EvalInputs
from eval.endpoint.client import Client
from eval.grade.simulate import Simulator, Verdict, find_simulator
from eval.grade.worker_pool import Workers, at_once, workers
from eval.journal import Journal, Sample
from eval.sandbox.run import MIB, Limits, find_confinement
from eval.score.summary import metrics_of, summarize
from eval.self_test import self_test

T = TypeVar("T")
_EMPTY = {
    "reasoning": "reasoning alone (reasoning_content)",
    "refusal": "a refusal",
    "tool calls": "tool calls",
    "null": "null",
}
SAMPLES, RESULTS, SUMMARY = "samples.jsonl", "results.jsonl", "summary.json"


@dataclass
class _Session:
    """What the tasks of one run share."""

    config: EvalConfig
    benchmark: GradedBenchmark
    samples: Journal
    results: Journal
    pool: Workers
    client: Client | None
    progress: Bar
    start: float = field(default_factory=time.monotonic)
    generation_seconds: float = 0.0
    pending: list[Sample] = field(default_factory=list)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def keep(self, result: Sample) -> None:
        """Write a result durably, together with those that came while the disk was busy with others."""
        self.pending.append(result)
        async with self.writing:
            rows, self.pending = self.pending, []
            if rows:
                await asyncio.to_thread(self.results.append, rows)

    async def problem(self, problem: Problem) -> None:
        """Bring one problem to its end: its missing samples, then its missing verdicts."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.benchmark.golden(self.pool, problem))
            wanted = set(range(self.config.samples)) if self.client else set()
            have = {sample for task, sample in self.samples.rows if task == problem.task_id}
            if self.client and not wanted <= have:
                await asyncio.to_thread(self.samples.append, await self.client.samples(problem, have))
                self.generation_seconds = time.monotonic() - self.start
            rows = [row for key, row in sorted(self.samples.rows.items()) if key[0] == problem.task_id]
            for row in rows:
                group.create_task(self.sample(problem, row))

    async def sample(self, problem: Problem, row: Sample) -> None:
        key = (row["task_id"], row["sample"])
        if key not in self.results.rows:
            verdict = await self.benchmark.grade(self.pool, problem, row["completion"])
            await self.keep({"task_id": key[0], "sample": key[1], **shown(verdict)})
        passed = sum(result["passed"] for result in self.results.rows.values())
        self.progress.advance(1, f"{len(self.samples.rows)} written, {passed} passed")


def shown(verdict: Verdict) -> Sample:
    """What a line of results.jsonl says of a verdict."""
    first = None
    if verdict.first_time is not None:
        first = {"outputs": list(verdict.first_outputs), "time": verdict.first_time}
    said = {"passed": verdict.passed, "category": verdict.category, "detail": verdict.detail}
    return said | {"first_mismatch": first}


def _check(config: EvalConfig, inputs: EvalInputs) -> None:
    if not config.self_test and config.completions is None and not (inputs.endpoint and inputs.model):
        raise UserError(
            "no endpoint or no model to ask for completions",
            where="endpoint, model",
            fix="give --endpoint URL and --model NAME, or score stored ones with --completions FILE",
        )


def simulator_of(config: EvalConfig) -> Simulator:
    """The confined simulator that a configuration asks for; UserError where this machine has no sandbox."""
    if config.sandbox == "none":
        log("warning: eval.sandbox is none: generated code runs unconfined")
    kind = "none" if config.sandbox == "none" else find_confinement()
    return Simulator(kind, Limits(seconds=config.timeout_s, memory=config.memory_mb * MIB))


def _lacks(problem: Problem, samples: Journal, wanted: int) -> bool:
    return any((problem.task_id, sample) not in samples.rows for sample in range(wanted))


def _longest_first(benchmark: GradedBenchmark) -> list[Problem]:
    """A prompt that the server finds too long is refused before others have been answered."""
    return sorted(benchmark.problems, key=lambda p: -sum(len(message["content"]) for message in benchmark.prompt(p)))


def tell_empty(samples: Journal) -> dict[str, int]:
    """Say what stood in place of answers; UserError where there is not one answer to score."""
    counts = Counter(row["empty"] for row in samples.rows.values() if "empty" in row)
    if not counts:
        return {}
    of = len(samples.rows)
    cut = sum(row.get("finish_reason") == "length" for row in samples.rows.values() if "empty" in row)
    what = ", ".join(f"{count} hold {_EMPTY[kind]}" for kind, count in sorted(counts.items()))
    said = f"{counts.total()} of {of} answers have no text: {what}; {cut} of them were cut off by eval.max_tokens"
    if counts.total() == of:
        raise UserError(
            said,
            where="message.content",
            fix="raise eval.max_tokens, or serve the model so that its answers come as message.content",
        )
    log(f"warning: {said}")
    return dict(sorted(counts.items()))


def asked(benchmark: GradedBenchmark, client: Client, samples: Journal) -> dict[str, Any]:
    """What summary.json says of a run that asked a model; UserError where it answered nothing."""
    said = {"prompts_digest": digest(benchmark.benchmark, benchmark.prompt), "empty_answers": tell_empty(samples)}
    return said | {"not_sent": client.left_out}


async def _score_all(
    config: EvalConfig,
    inputs: EvalInputs,
    benchmark: GradedBenchmark,
    simulator: Simulator,
    samples: Journal,
    results: Journal,
) -> _Session:
    generating = config.completions is None
    total = len(benchmark.problems) * config.samples if generating else len(samples.rows)
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(bar("eval", total, "samples"))
        pool = await stack.enter_async_context(
            workers(simulator, min(config.simulators or at_once(), max(total, 1)), config.extract)
        )
        client = Client(inputs.endpoint, inputs.model, config, benchmark.prompt) if generating else None
        if client is not None:
            await stack.enter_async_context(client)
            await client.check(tuple(p for p in benchmark.problems if _lacks(p, samples, config.samples)))
        session = _Session(config, benchmark, samples, results, pool, client, progress)
        attempted = {task for task, _ in samples.rows}
        async with asyncio.TaskGroup() as group:
            for problem in _longest_first(benchmark) if generating else benchmark.problems:
                if generating or problem.task_id in attempted:
                    group.create_task(session.problem(problem))
        return session


async def stopping_cleanly(work: Coroutine[Any, Any, T]) -> T:
    """Turn SIGTERM into the cancellation of `work`, so that workers end and journals close before the process does."""
    task = asyncio.ensure_future(work)
    loop, terminated = asyncio.get_running_loop(), False

    def stop(_signal: int, _frame: Any) -> None:
        nonlocal terminated
        terminated = True
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if terminated:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = next((e for e in found.exceptions if isinstance(e, UserError)), found.exceptions[0])
    return found


def run(config: EvalConfig, inputs: EvalInputs, out: Path) -> dict[str, Any]:
    """Score a model, or stored completions, on a benchmark; leaves samples, results and summary in `out`."""
    _check(config, inputs)
    version, simulator = find_simulator(), simulator_of(config)
    benchmark = open_benchmark(config)
    if config.self_test:
        return self_test(benchmark.benchmark, simulator, version, config.simulators or at_once(), out)
    stored = load_completions(config.completions, benchmark.benchmark) if config.completions else []
    start = time.monotonic()
    with ExitStack() as stack:
        samples = stack.enter_context(closing(Journal(out / SAMPLES)))
        results = stack.enter_context(closing(Journal(out / RESULTS)))
        samples.append(stored)
        if config.completions is None:
            results.keep(samples.rows)  # a sample that is asked for again is judged again
        try:
            work = _score_all(config, inputs, benchmark, simulator, samples, results)
            session = asyncio.run(stopping_cleanly(work))
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        of_endpoint = asked(benchmark, session.client, samples) if session.client else {}
    goldens = sorted(benchmark.goldens.items())
    ungradable = {task: verdict.detail for task, verdict in goldens if not verdict.passed}
    summary = summarize(config, benchmark.benchmark, results, ungradable, version, simulator.sandbox) | of_endpoint
    for name in summary["unattempted"][:1]:
        log(f"warning: {len(summary['unattempted'])} problems have no completions and are left out, {name} first")
    write_json(out / SUMMARY, summary)
    seconds = {
        "generation_seconds": session.generation_seconds,
        "simulation_seconds": session.pool.busy_seconds,
        "seconds": time.monotonic() - start,
    }
    return metrics_of(summary, samples) | {name: round(value, 3) for name, value in seconds.items()}
