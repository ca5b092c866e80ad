"""A server that lives as long as something needs it: started, awaited, spoken to, stopped.

The serve stage writes endpoint.json and metrics.json when it is ready. Its output goes to server.log in its folder;
until it is ready the log is also shown, for loading and compiling are what a person waits for.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import EXIT_USER_ERROR, UserError
from common.files import read_json, write_json
from common.progress import log
from pipeline.run import children
from pipeline.run.children import ChildFailed, Interrupted
from pipeline.run.graph import Step

ENDPOINT, METRICS, LOG = "endpoint.json", "metrics.json", "server.log"
SCRATCH = ".scratch"
_POLL_S = 0.05


@dataclass
class Server:
    """A running server; `endpoint` holds url and name."""

    child: subprocess.Popen[bytes]
    folder: Path
    endpoint: dict[str, str]
    metrics: dict[str, Any]
    shown: int
    """Bytes of the log that were shown while it started."""

    def show(self) -> None:
        """What it has said since."""
        with open(self.folder / LOG, "rb") as output:
            output.seek(self.shown)
            _show(output)
            self.shown = output.tell()

    def stop(self) -> int:
        return children.stop(self.child)


def start_server(step: Step, folder: Path, env: dict[str, str]) -> Server:
    """Start `step`'s server with `folder` as its output; returns when it is ready."""
    job = folder / "server.json"  # beside the attempt's own job, which says whose it is
    for name in (ENDPOINT, METRICS):
        (folder / name).unlink(missing_ok=True)
    write_json(job, step.job(folder))
    with open(folder / LOG, "wb") as sink:
        child = children.start("serve", job, env, sink, sink)
    try:
        with open(folder / LOG, "rb") as output:
            _await_ready(step, child, folder, output)
            shown = output.tell()
        return Server(child, folder, read_json(folder / ENDPOINT), read_json(folder / METRICS), shown)
    except BaseException:
        children.stop(child)
        raise


def _await_ready(step: Step, child: subprocess.Popen[bytes], folder: Path, output: BinaryIO) -> None:
    while not ((folder / ENDPOINT).is_file() and (folder / METRICS).is_file()):
        code = child.poll()
        _show(output)
        if code is not None:
            raise ChildFailed(step.name, code)
        time.sleep(_POLL_S)


def _show(output: BinaryIO) -> None:
    if fresh := output.read():
        sys.stderr.write(fresh.decode(errors="replace"))
        sys.stderr.flush()


@contextlib.contextmanager
def scratch_server(step: Step, root: Path, env: dict[str, str]) -> Iterator[Server]:
    """A server whose folder is thrown away."""
    (root / SCRATCH).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{step.name}-", dir=root / SCRATCH))
    try:
        server = start_server(step, folder, env)
        try:
            server.show()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another server's folder is in it
            folder.parent.rmdir()


def check_alive(server: Server) -> None:
    """Explain a failed client by its server's death, where that is the cause. Raises UserError then."""
    code = server.child.poll()
    if code is not None:
        tail = (server.folder / LOG).read_text(errors="replace").splitlines()[-12:]
        log("\n".join(["the server ended:", *tail]))
        if code == EXIT_USER_ERROR:
            raise UserError("the server stopped while it was scored")


def follow(start: Callable[[], Server]) -> int:
    """Start a server and show what it says until it ends or we are asked to; returns its exit code.

    One that is asked to end once it is ready ends well, wherever in here we are by then. Raises Interrupted for one
    that was still loading or would not end, ChildFailed for one that a signal ended.
    """
    before = children.newest()
    try:
        server = start()
        while (code := server.child.poll()) is None:
            server.show()
            time.sleep(_POLL_S)
        server.show()
    except Interrupted:
        child = children.newest()
        if child is None or child is before or children.stop(child) != 0:
            raise
        return 0
    if code < 0:
        raise ChildFailed("serve", code)
    return code
