"""Runs steps: skips what has a record, resumes what was cut off, commits what is complete.

A step works in `<fingerprint>.partial` and is renamed when its record is written: a record that exists is true.
A server that was started for the serve step stays up until the steps that talk to it are done.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.digests.known import Digests
from common.digests.results import note_files
from common.errors import UserError
from common.files import commit_folder, locked, partial_of, read_json, write_json
from common.progress import log
from models.config import HardwareConfig
from pipeline.run import children
from pipeline.run.attempts import JOB, make_way
from pipeline.run.children import ChildFailed
from pipeline.run.graph import KNOWN, RESUMES, Step
from pipeline.run.records import RECORD, check_result, now, read_record, write_record
from pipeline.run.scores import with_wanted_k
from pipeline.run.server import METRICS, SCRATCH, Server, check_alive, scratch_server, start_server

LOCK = ".lock"
LOCK_PATIENCE_S = 5.0
"""A killed run's last process may need a moment to let go."""
HASHED = "sha256 "
"""Begins the names of metrics that are digests of files."""


@dataclass(frozen=True)
class Result:
    """A step that is done. `kept`: it was there before."""

    step: Step
    kept: bool
    seconds: float
    metrics: dict[str, Any] = field(default_factory=dict)


def is_done(step: Step) -> bool:
    return (step.final / RECORD).is_file()


def read_result(step: Step, kept: bool = True) -> Result:
    record = read_record(step.final)
    return Result(step, kept, record["seconds"], record["metrics"])


def child_env(hardware: HardwareConfig, cache: Path | None, debug: bool) -> dict[str, str]:
    """The environment of a stage's process."""
    env = dict(os.environ)
    env["TAPEOUT_DEBUG"] = "1" if debug else "0"
    # transformers is here for its tokenizers; that it finds no PyTorch is nothing to tell a user.
    env.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # XLA on CPU maps and unmaps hundreds of MB of buffers each step: with huge pages a step takes a tenth less time.
    env.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    if cache is not None and hardware.compile_cache:
        env.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        env.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        env.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    if hardware.devices is not None:
        flag = f"--xla_force_host_platform_device_count={hardware.devices}"
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {flag}".strip()
    return env


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Hold `root`'s lock."""
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / LOCK, LOCK_PATIENCE_S):
        shutil.rmtree(root / SCRATCH, ignore_errors=True)
        yield


class Clock:
    """When a step began, for its record and for its duration. A scored model's step begins with its server."""

    def __init__(self) -> None:
        self.started, self.begin = now(), time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begin


class Runner:
    """Runs steps one after the other; `root` is the recipe's folder under the runs folder."""

    def __init__(self, root: Path, env: dict[str, str], digests: Digests):
        self.root, self.env, self.digests = root, env, digests

    def run(self, steps: Sequence[Step]) -> list[Result]:
        """Do what is not done of `steps`. Whatever they need from outside must exist (see `check_needs`). Raises
        UserError for a finished result, kept or read, whose files are no longer what they were."""
        results: list[Result] = []
        for done in {each.final: each for step in steps for each in (*step.needs, step) if is_done(each)}:
            check_result(done, self.digests)
        with ExitStack() as alive:
            servers: dict[str, Server] = {}
            for step in steps:
                if is_done(step):
                    with_wanted_k(step, self.env)
                    log(f"{step.name}: kept ({step.fingerprint})")
                    results.append(read_result(step))
                    continue
                if step.final.is_dir() and any(step.final.iterdir()):
                    read_record(step.final)  # there is none, or no file: said before the work is done anew
                log(f"{step.name}: start ({step.fingerprint})")
                if step.stage == "serve":
                    servers[step.name] = self.serve(step)
                    alive.callback(servers[step.name].stop)
                    results.append(read_result(step, kept=False))
                elif step.server is not None:
                    results.append(self._score(step, step.server, servers.get(step.server.name)))
                else:
                    results.append(self._process(step))
        return results

    def serve(self, step: Step) -> Server:
        """Start the step's server and commit its record; the server goes on."""
        with self._attempt(step) as (partial, record):
            clock = Clock()
            server = start_server(step, partial, self.env)
            try:
                self._commit(step, partial, record, clock, server.metrics)
            except BaseException:
                server.stop()
                raise
        server.folder = step.final
        return server

    def _score(self, step: Step, wanted: Step, server: Server | None) -> Result:
        if server is not None:
            return self._ask(step, server)
        clock = Clock()
        with scratch_server(wanted, self.root, self.env) as own:
            return self._ask(step, own, clock)

    def _ask(self, step: Step, server: Server, clock: Clock | None = None) -> Result:
        inputs = {"endpoint": server.endpoint["url"], "model": server.endpoint["name"]}
        try:
            return self._process(step, inputs, clock)
        except ChildFailed:
            check_alive(server)
            raise

    def _process(self, step: Step, inputs: dict[str, Any] | None = None, clock: Clock | None = None) -> Result:
        clock = clock or Clock()
        with self._attempt(step, inputs) as (partial, record):
            code = children.wait(children.start(step.stage, partial / JOB, self.env))
            if code != 0:
                raise ChildFailed(step.name, code)
            metrics = read_json(partial / METRICS)
            self._commit(step, partial, record, clock, metrics)
        return read_result(step, kept=False)

    def _commit(self, step: Step, partial: Path, record: dict[str, Any], clock: Clock, metrics: dict[str, Any]) -> None:
        hashed = {key.removeprefix(HASHED): value for key, value in metrics.items() if key.startswith(HASHED)}
        files = note_files(partial, self.digests, hashed)
        write_record(partial, record, clock.started, clock.seconds, metrics, files)
        commit_folder(partial, step.final)
        self.digests.moved(partial, step.final)
        self.digests.save()

    @contextmanager
    def _attempt(self, step: Step, inputs: dict[str, Any] | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The partial folder with its job, and the record so far; after a failure only what a resume uses stays."""
        partial = partial_of(step.final)
        make_way(partial, step)
        partial.mkdir(parents=True, exist_ok=True)
        try:
            job = step.job(partial, inputs)
            write_json(partial / JOB, job | {"fingerprint": step.fingerprint, "identity": step.identity})
            about = {"stage": step.name, "fingerprint": step.fingerprint, "identity": step.identity}
            read = {name: value for name, value in job["inputs"].items() if name != KNOWN}
            yield partial, {**about, "config": job["config"], "inputs": read}
        except BaseException:
            if step.stage not in RESUMES or {path.name for path in partial.glob("*")} <= {JOB}:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def check_needs(steps: Sequence[Step], command: str) -> None:
    """Every result that `steps` read is there or is made by one of them; `command` makes one, given its stage."""
    for step in steps:
        for need in step.needs:
            if need not in steps and not is_done(need) and not is_done(step):
                raise missing(step, need, command)


def missing(step: Step, need: Step, command: str) -> UserError:
    return UserError(
        f"{step.name} reads what {need.name} makes, and that is not there for this recipe",
        where=str(need.final),
        fix=f"first run: {command.format(stage=need.stage)}",
    )
