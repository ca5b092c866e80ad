"""What hostile designs cost the honest ones beside them: the time of an honest design on a worker of its own, while the
other workers run nothing but one hostile design, against the same while they run that honest design too.

Part of `python -m benchmarks.eval BENCHMARK --neighbours`. By turns.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from benchmarks.cpu import cpu_seconds
from common.benchmark.problems import Problem
from common.machine import cores
from eval.grade import harness
from eval.grade.simulate import Simulator, Verdict
from eval.grade.worker_pool import Workers, workers

TURNS, TIMES = 3, 20
HOSTILE = {
    "loops in the simulator": "initial while (1) ;",
    "loops in the compiler": "function integer f(input integer x); while (1) f = x; endfunction\nlocalparam L = f(1);",
    "has a vector of 10^9 bits": "reg [999999999:0] big; initial big = ~big; always #1 big = big + 1;",
    "has a memory of 10^9 words": "reg [31:0] m [0:999999999]; initial m[5] = 1;",
    "generates without end": "genvar i; generate for (i = 0; i < 1000000000; i++) begin : g reg r; end endgenerate",
    "has a macro that doubles": "".join(f"`define M{i} `M{i - 1} `M{i - 1}\n" for i in range(40, 0, -1))
    + "`define M0 1\n"
    "assign q = `M40;",
    "floods the output": 'initial forever $display("%0d", {100{32\'hffffffff}});',
    "grows a string": 'string s = "x"; initial forever s = {s, s};',
    "forks": "initial forever fork begin #1; end join_none",
    "recurses": "function automatic integer f(input integer x); f = f(x + 1); endfunction\ninitial $display(f(0));",
}


def _hostile(problem: Problem, body: str) -> str:
    """The reference with the hostile body in its main module."""
    return harness.reference_as_design(problem).replace("endmodule", body + "\nendmodule", 1)


@contextlib.asynccontextmanager
async def _pressed(pool: Workers, problem: Problem, design: str, golden: Verdict) -> AsyncIterator[None]:
    """Within, every worker of the pool grades `design` over and over."""

    async def press() -> None:
        while True:
            await pool.grade(problem, design, golden)

    tasks = [asyncio.create_task(press()) for _ in range(pool.count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Taken:
    """Wall seconds of each honest design, and CPU seconds of its worker over all of them."""

    walls: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def wall_ms(self) -> float:
        return statistics.median(self.walls) * 1e3

    @property
    def cpu_ms(self) -> float:
        return self.cpu / len(self.walls) * 1e3


async def _beside(neighbour: str, problem: Problem, simulator: Simulator, taken: Taken) -> None:
    """Grade an honest design several times beside workers that grade `neighbour`."""
    honest = harness.reference_as_design(problem)
    async with workers(simulator, 1) as own, workers(simulator, max(cores() - 1, 1)) as others:
        golden = await own.golden(problem)
        async with _pressed(others, problem, neighbour, golden):
            await own.grade(problem, honest, golden)
            before = cpu_seconds(own.all[0].pid)
            for _ in range(TIMES):
                start = time.perf_counter()
                verdict = await own.grade(problem, honest, golden)
                taken.walls.append(time.perf_counter() - start)
                assert verdict.passed, "an honest design failed"
            taken.cpu += cpu_seconds(own.all[0].pid) - before


def measure(problem: Problem, simulator: Simulator) -> None:
    print(
        f"{problem.task_id}, one honest design beside {max(cores() - 1, 1)} other workers: median wall, mean CPU time"
    )
    walls, cpus = [], []
    for name, body in HOSTILE.items():
        among, beside = Taken(), Taken()
        for _ in range(TURNS):
            asyncio.run(_beside(harness.reference_as_design(problem), problem, simulator, among))
            asyncio.run(_beside(_hostile(problem, body), problem, simulator, beside))
        walls.append(beside.wall_ms / among.wall_ms)
        cpus.append(beside.cpu_ms / among.cpu_ms)
        print(
            f"beside one that {name}: {beside.wall_ms:.1f} and {beside.cpu_ms:.1f} ms, beside honest ones "
            f"{among.wall_ms:.1f} and {among.cpu_ms:.1f} ms: {walls[-1]:.2f}, {cpus[-1]:.2f}",
            flush=True,
        )
    for what, ratios in (("wall", walls), ("CPU", cpus)):
        middle, most = statistics.median(ratios), max(ratios)
        print(f"{what} time, hostile against honest neighbours: median {middle:.2f}, at most {most:.2f}")
