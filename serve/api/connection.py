"""Connections and their end: uvicorn's, with a time for a request's head, a limit of connections, and a drain.

uvicorn alone lets a client that sends a byte now and then, or none at all, or that never reads its answer, hold its
connection for ever, and does not see one go that has sent its next request early.
"""

import asyncio
import signal
import time
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve.api.errors import Refusal
from serve.api.jobs import Hub

HEAD_BYTES = 64 << 10
GOODBYE_SECONDS = 1
"""What connections get to take their last answers, after the drain."""


def connection_class(seconds: float, most: int) -> type[H11Protocol]:
    """uvicorn makes the connections itself, so their limits are bound here. `seconds`: for each request's head."""

    class Connection(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                self._answer_and_close(Refusal(429, "too many connections", code="too_many_connections"))
            else:
                self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            self._flowing()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            early = self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0])
            if early and early < HEAD_BYTES:
                self.flow.resume_reading()  # the end of a connection shows to those who read only
            self._watch()

        def pause_writing(self) -> None:
            """The client leaves its answer unread."""
            super().pause_writing()
            self._expect_reading()

        def _expect_reading(self) -> None:
            if self._stalled is None:
                self._stalled = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if not self.transport.is_closing():
                self._flowing()

        def _flowing(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()
            self._ending()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._ending()

        def _ending(self) -> None:
            if self.transport.is_closing():
                self._expect_reading()

        def _watch(self) -> None:
            """A deadline while a head is awaited (from its first byte; uvicorn's own closes idle connections)."""
            answering = self.cycle is not None and not self.cycle.response_complete
            idle = self.timeout_keep_alive_task is not None
            if answering or idle:
                self._unwatch()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(seconds, self._too_slow)

        def _unwatch(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

        def send_400_response(self, msg: str) -> None:
            """What is no HTTP; in the middle of an answer there is nothing left to say."""
            if self.cycle is not None:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._answer_and_close(Refusal(400, "not a valid HTTP/1.1 request", code="invalid_http"))

        def _answer_and_close(self, refusal: Refusal) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                response = refusal.response()
                headers = [*response.raw_headers, (b"connection", b"close")]
                for event in (
                    h11.Response(status_code=refusal.status, headers=headers),
                    h11.Data(data=bytes(response.body)),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _unsupported_upgrade_warning(self) -> None:
            """A request to upgrade is answered as if it had not asked, as RFC 9110 allows."""

    return Connection


class Server(uvicorn.Server):
    """On SIGTERM or Ctrl-C: new requests get 503, open ones get `drain_seconds`; at a second signal it ends at once."""

    def __init__(self, config: uvicorn.Config, hub: Hub, drain_seconds: int):
        super().__init__(config)
        self.hub, self.drain_seconds = hub, drain_seconds
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain_until is not None:
            return super().handle_exit(sig, frame)
        self._captured_signals.append(sig)
        self.hub.draining = True
        self._drain_until = time.monotonic() + self.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if self._drain_until is not None and (self.hub.idle or time.monotonic() >= self._drain_until):
            self.should_exit = True
        if self.should_exit:
            self.hub.draining = True
            self.hub.expire()
        return await super().on_tick(counter)


def build_server(app: Any, hub: Hub, *, seconds: float, connections: int, drain_seconds: int) -> Server:
    settings = uvicorn.Config(
        app,
        http=connection_class(seconds, connections),
        ws="none",
        log_level="error",
        access_log=False,
        lifespan="on",
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=max(1, int(seconds)),
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    return Server(settings, hub, drain_seconds)


def end_on_signals(server: Server) -> None:
    """A signal ends it well before uvicorn takes them over, too; when it is done it repeats them to these handlers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
