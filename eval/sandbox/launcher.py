"""The process that starts confined programs: it takes on the confinement and the limits itself, once and for good.

What it starts inherits both, so that nothing need run between fork and exec, and starting is as cheap as unconfined
(vfork). `eval.sandbox.launcher_pool` asks it for one run at a time over a socket; when that closes, it
ends with what it runs.
Nothing outlives its run, not even what left the program's process group: orphans are adopted here.
"""

import ctypes
import marshal
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from eval.sandbox import landlock
from eval.sandbox.orphans import Orphans

_CHUNK = 1 << 16
_READY, _WRITABLE = select.POLLIN | select.POLLHUP | select.POLLERR, select.POLLOUT | select.POLLERR
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 4, 24
_CAPABILITIES = 64
_libc = ctypes.CDLL(None, use_errno=True)


def send(channel: socket.socket, message: Any) -> None:
    body = marshal.dumps(message)
    channel.sendall(len(body).to_bytes(4, "little") + body)


def receive(channel: socket.socket) -> Any:
    """The next message; EOFError when the other side is gone."""
    return marshal.loads(_exactly(channel, int.from_bytes(_exactly(channel, 4), "little")))


def _exactly(channel: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        chunk = channel.recv(min(count - len(found), 1 << 20))
        if not chunk:
            raise EOFError
        found += chunk
    return bytes(found)


class _Talk:
    """Feeds standard input and collects output until the program closes it, or a limit is met."""

    def __init__(self, request: dict[str, Any], process: Any, ours: socket.socket, control: socket.socket):
        self.process, self.ours, self.control = process, ours, control
        self.input, self.output = memoryview(request["stdin"]), bytearray()
        self.most, self.deadline = request["output"], time.monotonic() + request["seconds"]
        self.poll = select.poll()
        self.poll.register(ours, _READY)
        self.poll.register(control, select.POLLHUP)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self.poll.register(process.stdin, _WRITABLE)

    def held(self) -> str:
        """The limit that was met, or "" when the program ended before any."""
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                return "time"
            for fd, _ in self.poll.poll(left * 1000 + 1):
                if fd == self.control.fileno():
                    raise EOFError
                if fd != self.ours.fileno():
                    self._feed(fd)
                    continue
                chunk = self.ours.recv(_CHUNK)
                self.output += chunk
                if len(self.output) > self.most:
                    return "output"
                if not chunk:
                    return "" if self._ends() else "time"

    def _feed(self, fd: int) -> None:
        try:
            self.input = self.input[os.write(fd, self.input[:_CHUNK]) :]
        except BrokenPipeError:
            self.input = self.input[:0]
        if not self.input:
            self.poll.unregister(fd)
            self.process.stdin.close()

    def _ends(self) -> bool:
        """Whether the process ends before the deadline; it stays unreaped, so that its id stays its own."""
        pause = 50e-6
        while os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > self.deadline + 0.1:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.01)
        return True


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End the process and whatever it left in its group."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def run(request: dict[str, Any], control: socket.socket, orphans: Orphans) -> tuple[int, bytes, str]:
    """(exit code or minus the signal, output, limit that ended it); nothing that the program started is left."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                request["argv"],
                executable=request["executable"],
                cwd=request["folder"],
                env=request["env"],
                stdin=subprocess.PIPE if request["stdin"] else None,  # ours is /dev/null
                stdout=theirs.fileno(),
                stderr=theirs.fileno(),
                bufsize=0,
                start_new_session=True,
            )
        try:
            if request["may_not_fork"]:  # in time: it has read nothing of its standard input yet
                resource.prlimit(process.pid, resource.RLIMIT_NPROC, (0, 0))
            talk = _Talk(request, process, ours, control)
            stopped = talk.held()
        finally:
            _kill_group(process)
            orphans.end()
        return process.returncode, bytes(talk.output[: talk.most]), stopped


def _take_on(cell: dict[str, Any]) -> None:
    """Limit and confine this process and all that it will start. What it starts cannot trace it (it can end it)."""
    for which, value in cell["limits"]:
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (value, value))
        except ValueError:
            if sys.platform == "linux":
                raise
    if cell["readable"] is not None:
        _libc.prctl(_PR_SET_DUMPABLE, 0)
        for capability in range(_CAPABILITIES):
            _libc.prctl(_PR_CAPBSET_DROP, capability)
        rules = landlock.ruleset(cell["readable"], cell["writable"])
        landlock.confine(rules)
        os.close(rules)


def _answer(question: Any, control: socket.socket, orphans: Orphans) -> tuple[Any, ...]:
    try:
        return run(question, control, orphans) if "argv" in question else (_take_on(question),)
    except OSError as error:
        return (error.errno or 0, error.strerror or str(error))


def serve(descriptor: int) -> None:
    """Take on the confinement that the first message describes, then run what the others ask for."""
    orphans = Orphans()
    with socket.socket(fileno=descriptor) as control:
        try:
            while True:
                send(control, _answer(receive(control), control, orphans))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass


if __name__ == "__main__":
    serve(int(sys.argv[1]))
