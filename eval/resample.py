"""More samples for a gate that noise left undecided: `python -m eval.resample JOB.json`, in a copy of the run's folder.

Drawn for the problems that the *baseline* passed sometimes and failed sometimes: there one more sample takes most noise
out, and choosing by the run's own outcomes would bias its score. Where the baseline has no such problem, for all.
"""

import asyncio
import shutil
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from common.answer import answer
from common.errors import UserError
from common.files import read_json, write_json
from common.progress import bar, log
from eval.benchmarks.graded import GradedBenchmark, open_benchmark
from eval.config import EvalConfig
from eval.endpoint.client import Client
from eval.grade.extract import Rule
from eval.grade.simulate import Simulator, find_simulator
from eval.grade.worker_pool import at_once, workers
from eval.journal import Journal
from eval.score.summary import summarize
from eval.stage import RESULTS, SAMPLES, SUMMARY, asked, first_error, shown, simulator_of, stopping_cleanly


def telling(baseline: dict[str, Any]) -> list[str]:
    """The problems whose outcome in the baseline was mixed; all of them where none was."""
    samples = baseline["per_problem_samples"]
    mixed = [task for task, passed in baseline["per_problem"].items() if 0 < passed < samples[task]]
    return sorted(mixed or samples)


def _copied(run: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in (SAMPLES, RESULTS, SUMMARY):
        if not (run / name).is_file():
            raise UserError(
                f"this run has no {name}: more samples can only join those that are there",
                where=str(run),
                fix="name the folder that eval wrote, not a saved summary",
            )
        if not (out / name).exists():
            shutil.copyfile(run / name, out / name)


async def _draw(
    benchmark: GradedBenchmark, tasks: list[str], more: int, simulator: Simulator, client: Client, results: Journal,
    samples: Journal, before: dict[str, int], rule: Rule,
) -> None:  # fmt: skip
    """For each task, samples up to `before` + `more`: those that a cut-off call left out, and their verdicts."""
    async with workers(simulator, at_once(), rule) as pool, client:
        await client.check(tuple(benchmark.benchmark.by_id[task] for task in tasks))
        with bar("more samples", len(tasks) * more, "samples") as progress:

            async def one(task: str) -> None:
                problem = benchmark.benchmark.by_id[task]
                wanted = range(before[task], before[task] + more)
                samples.append(await client.more(problem, [i for i in wanted if (task, i) not in samples.rows]))
                for i in wanted:
                    if (task, i) not in results.rows:
                        verdict = await benchmark.grade(pool, problem, samples.rows[task, i]["completion"])
                        results.append([{"task_id": task, "sample": i, **shown(verdict)}])
                    progress.advance()

            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(one(task))


def draw_more(job: dict[str, Any]) -> None:
    """Leave in `out` what the run has and `more` further samples of each telling problem, scored together. Raises
    UserError for a benchmark that has changed since, and what stopped the samples."""
    run, out = Path(job["run"]), Path(job["out"])
    config = EvalConfig.model_validate(job["config"])
    _copied(run, out)
    before, baseline = read_json(run / SUMMARY), job["baseline"]
    version, simulator = find_simulator(), simulator_of(config)
    benchmark = open_benchmark(config)
    if benchmark.benchmark.digest != before["benchmark_digest"]:
        raise UserError(
            "the benchmark is no longer the one that this run was scored on",
            where=config.benchmark,
            fix="restore it, or score the run again",
        )
    tasks = [task for task in telling(baseline) if task in before["per_problem_samples"]]
    log(f"drawing {job['more']} more samples of each of {len(tasks)} problems, into {out}")
    client = Client(job["endpoint"], job["model"], config, benchmark.prompt)
    with ExitStack() as stack:
        samples = stack.enter_context(closing(Journal(out / SAMPLES)))
        results = stack.enter_context(closing(Journal(out / RESULTS)))
        counts = before["per_problem_samples"]
        work = _draw(benchmark, tasks, job["more"], simulator, client, results, samples, counts, config.extract)
        try:
            asyncio.run(stopping_cleanly(work))
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        of_endpoint = asked(benchmark, client, samples)
    joint = summarize(config, benchmark.benchmark, results, before["ungradable"], version, simulator.sandbox)
    write_json(out / SUMMARY, joint | of_endpoint)


if __name__ == "__main__":
    sys.exit(answer(draw_more))
