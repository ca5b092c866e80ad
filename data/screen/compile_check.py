"""The optional compile check: answers go to one slang process a core, several at a time, and come back in order.

A process that dies or is silent for ten seconds is replaced; the design it was on counts as one that does not compile.
"""

import os
import re
import select
import subprocess
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from common.errors import UserError
from common.machine import cores
from common.process import start
from data.config import DataConfig
from data.formats.example import Example
from data.formats.reasoning import fences
from data.screen.compiles import SIZE
from data.screen.rtl import without_comments

SILENCE_S = 10.0
_AHEAD = 64
_DEFINES = re.compile(r"\b(?:macro)?module\b")


class _Worker:
    """One slang process, started when it is first asked and again when it died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            self.process = start(
                "data.screen.compiles",
                with_parent=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",  # what a design includes is not looked for among the user's files
            )
        return self.process

    def ask(self, design: str) -> bool:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        content = design.encode(errors="replace")
        try:
            process.stdin.write(SIZE.pack(len(content)) + content)
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], SILENCE_S)
            answer = os.read(process.stdout.fileno(), 1) if ready else b""
        except BrokenPipeError:
            answer = b""
        if not answer:
            self.stop()
        return answer == b"1"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None


def design_of(example: Example) -> str:
    """The Verilog of the last answer or of the document: its first Verilog fence, or all of it; "" for none."""
    answers = [message["content"] for message in example.messages if message["role"] == "assistant"]
    text = answers[-1] if answers else example.text
    code = next(fences(text), text)
    return code if _DEFINES.search(without_comments(code)) else ""


def compiling(config: DataConfig, examples: Iterable[Example], dropped: Counter[str]) -> Iterator[Example]:
    """The examples whose Verilog compiles; the others are counted, or stop the stage. Raises UserError for one that
    does not, unless they are dropped."""
    count = cores()
    workers = [_Worker() for _ in range(count)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def passes(design: str) -> bool:
        worker = idle.get()
        try:
            return worker.ask(design)
        finally:
            idle.put(worker)

    def settled(example: Example, verdict: Future[bool] | None) -> bool:
        if verdict is not None and verdict.result():
            return True
        reason = "does not compile" if verdict is not None else "no Verilog to compile"
        if config.compile_check == "error":
            raise UserError(f"the answer: {reason}", where=example.where, fix="mend the row, or compile_check: drop")
        dropped[reason] += 1
        return False

    waiting: deque[tuple[Example, Future[bool] | None]] = deque()
    pool = ThreadPoolExecutor(count)
    try:
        for example in examples:
            design = design_of(example)
            waiting.append((example, pool.submit(passes, design) if design else None))
            if len(waiting) > _AHEAD * count and settled(*(ready := waiting.popleft())):
                yield ready[0]
        while waiting:
            if settled(*(ready := waiting.popleft())):
                yield ready[0]
    finally:
        pool.shutdown(cancel_futures=True)
        for worker in workers:
            worker.stop()
