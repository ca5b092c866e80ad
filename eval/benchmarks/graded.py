"""A benchmark in use: its problems, the words one is put to a model in, and the judgement of an answer.

Every layout of files ends in the same Problem (common/benchmark), so one grader and one wording serve them all.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from common.benchmark.layouts import read_benchmark
from common.benchmark.problems import Benchmark, Problem
from eval.benchmarks.checkout import fetched_folder
from eval.benchmarks.prompts import Message, wording
from eval.config import EvalConfig
from eval.grade.simulate import Verdict
from eval.grade.worker_pool import Workers


@dataclass(frozen=True)
class GradedBenchmark:
    """`prompt` is how a problem is put; `goldens` holds what the references did, each run once."""

    benchmark: Benchmark
    prompt: Callable[[Problem], list[Message]]
    goldens: dict[str, Verdict] = field(default_factory=dict)
    _running: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.benchmark.problems

    async def golden(self, pool: Workers, problem: Problem) -> Verdict:
        """The reference's own run."""
        async with self._running[problem.task_id]:
            if problem.task_id not in self.goldens:
                self.goldens[problem.task_id] = await pool.golden(problem)
        return self.goldens[problem.task_id]

    async def grade(self, pool: Workers, problem: Problem, completion: str) -> Verdict:
        """What a completion is worth, held against the reference's own run."""
        return await pool.grade(problem, completion, await self.golden(pool, problem))


def open_benchmark(config: EvalConfig) -> GradedBenchmark:
    """The benchmark that a configuration names, fetched where it is a repository; UserError where it cannot be read."""
    folder = fetched_folder(config)
    return GradedBenchmark(read_benchmark(folder), wording(config, folder))
