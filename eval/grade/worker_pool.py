"""A pool of simulation workers (`eval.grade.worker`) that an event loop hands designs to and awaits verdicts from."""

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator
from dataclasses import asdict

from common.benchmark.problems import Problem
from common.errors import UserError
from common.machine import cores
from common.process import command, environment
from eval.grade.extract import Rule
from eval.grade.simulate import Simulator
from eval.grade.verdict import Verdict
from eval.sandbox import scratch

WORKER_GRACE_S = 30.0
IN_COMPANY, ALONE = 3, 2
"""How often a text whose workers die is tried: beside others, then with the machine's other workers at rest."""
_LINE_LIMIT = 64 << 20


class _DiedError(Exception):
    """Of this machine, not of a design: a worker ended, or was ended, without an answer."""


def at_once() -> int:
    """One more than the cores: while a worker reads or answers, those that simulate still fill the machine."""
    return cores() + 1


@functools.lru_cache(maxsize=256)
def _text(problem: Problem) -> bytes:
    return json.dumps(asdict(problem)).encode()


async def _end(process: asyncio.subprocess.Process, patience: float) -> None:
    """Await the process's own end for a while, then kill it (killing one that is ending confuses asyncio's watcher)."""
    try:
        async with asyncio.timeout(patience):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Workers:
    """Grades at most `count` designs at a time. A worker that dies or hangs is replaced, and asked again."""

    def __init__(self, simulator: Simulator, count: int, folder: str, rule: Rule = "default"):
        self.simulator, self.count, self.folder, self.rule = simulator, count, folder, rule
        self.idle: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
        self.all: list[asyncio.subprocess.Process] = []
        self.alone = asyncio.Lock()
        self.busy_seconds = 0.0

    async def _start(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *command("eval.grade.worker", with_parent=True),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(TMPDIR=self.folder),
            limit=_LINE_LIMIT,
            start_new_session=True,
        )
        self.all.append(process)
        self.idle.put_nowait(process)

    async def _ask(self, problem: Problem, completion: str | None, golden: Verdict | None) -> Verdict:
        process = await self.idle.get()
        assert process.stdin is not None and process.stdout is not None
        start = asyncio.get_running_loop().time()
        sandbox, limits = self.simulator.sandbox, asdict(self.simulator.limits)
        job = {"completion": completion, "golden": golden and vars(golden), "sandbox": sandbox, "limits": limits}
        job |= {"extract": self.rule}
        line = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            process.stdin.write(_text(problem) + b"\t" + json.dumps(job).encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(6 * self.simulator.limits.seconds + WORKER_GRACE_S):
                line = await process.stdout.readline()
        self.busy_seconds += asyncio.get_running_loop().time() - start
        if not line.endswith(b"\n"):
            self.all.remove(process)
            await _end(process, patience=1.0)
            await self._start()
            raise _DiedError(f"a simulation worker died (exit code {process.returncode})")
        self.idle.put_nowait(process)
        said = json.loads(line)
        if "os_error" in said:
            code, *rest = said["os_error"]
            raise OSError(code, *rest) if code else _DiedError(rest[0])  # 0: its launcher died
        return Verdict(**said)

    async def _alone(self, problem: Problem, completion: str | None, golden: Verdict | None) -> Verdict:
        """The verdict while the other workers rest. Where the text's workers die all the same, and the reference's do
        not, it is the text that ends them; _DiedError where the reference's die, too."""
        async with self.alone:
            resting = [await self.idle.get() for _ in range(self.count - 1)]
            try:
                for _ in range(ALONE):
                    with contextlib.suppress(_DiedError):
                        return await self._ask(problem, completion, golden)
                    reference = await self._ask(problem, None, None)
                    if completion is None:
                        return reference
            finally:
                for process in resting:
                    self.idle.put_nowait(process)
        return Verdict("runtime", "each worker that graded this text died, and none that graded the reference did")

    async def _verdict(self, problem: Problem, completion: str | None, golden: Verdict | None) -> Verdict:
        """A worker's death is nobody's verdict: another is asked, and where whatever it grades dies, the run stops."""
        for _ in range(IN_COMPANY):
            with contextlib.suppress(_DiedError):
                return await self._ask(problem, completion, golden)
        try:
            return await self._alone(problem, completion, golden)
        except _DiedError as died:
            raise UserError(
                f"{died}, {IN_COMPANY + 2} times in a row: no verdict is given for that",
                where=problem.task_id,
                fix="give the machine more memory, or set eval.simulators lower; the same command goes on from here",
            ) from None

    async def golden(self, problem: Problem) -> Verdict:
        return await self._verdict(problem, None, None)

    async def grade(self, problem: Problem, completion: str, golden: Verdict) -> Verdict:
        return await self._verdict(problem, completion, golden)


@contextlib.asynccontextmanager
async def workers(simulator: Simulator, count: int, rule: Rule = "default") -> AsyncIterator[Workers]:
    """Start the pool; on leaving, however that comes about, its processes are gone."""
    with scratch.folder() as folder:
        pool = Workers(simulator, count, folder, rule)
        try:
            for _ in range(count):
                await pool._start()
            yield pool
        finally:
            await asyncio.gather(*(_end(process, patience=0.0) for process in pool.all))
