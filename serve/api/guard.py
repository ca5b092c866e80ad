"""Before anything is parsed: who asks, by which name, and how much. Pure ASGI, around the application.

A body is read whole, within a size and a time, and only then handed on; what is too large or too slow is refused while
the rest of it is thrown away, so that the client reads the answer and not a broken connection.
"""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api.errors import Refusal, shown

OPEN = frozenset({"/health", "/ready"})
"""Paths that need no key: load balancers ask them."""
LINGER_SECONDS = 5.0
LINGER_BYTES = 256 << 20
BODIES = 64
"""As many bodies of the largest size may be held at a time, until their answers have ended."""
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]*?)\.?)(?::[0-9]*)?")


@dataclass(frozen=True)
class Rules:
    """`hosts`: names that a Host header may have, None for any. `keys`: sha256 of each accepted key; none: no keys."""

    hosts: frozenset[str] | None
    keys: tuple[bytes, ...]
    max_body: int
    seconds: float


class ClientGone(Exception):
    """The client hung up before its request was whole."""


class Guard:
    """Refuses what breaks the rules; the application sees whole bodies only."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self.app, self.rules = app, rules
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answer, body = Answer(send), bytearray()
        try:
            self._check(scope)
            await self._receive(body, receive)
            await self.app(scope, _replay(bytes(body), receive), answer.send)
        except Refusal as refusal:
            await _refuse(refusal, scope, receive, answer.send)
        except ClientGone:
            # nobody reads it; the server would report a request without an answer as our fault
            await Refusal(400, "the request was cut off").response()(scope, receive, answer.send)
        except asyncio.CancelledError:
            if not answer.started:
                await Refusal(503, "the server is shutting down").response()(scope, receive, answer.send)
        finally:
            self._held -= len(body)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host")
        if self.rules.hosts is not None and host is not None and host_name(host) not in self.rules.hosts:
            name = shown(host.decode("latin-1"))
            raise Refusal(403, f"this server is not called {name}; see serve.allowed_hosts", code="unknown_host")
        if self.rules.keys and scope["path"] not in OPEN and not self._key_known(headers.get(b"authorization", b"")):
            raise Refusal(401, "a valid API key is needed: Authorization: Bearer KEY", code="invalid_api_key")
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.rules.max_body:
            raise self._too_large()

    def _key_known(self, authorization: bytes) -> bool:
        """Every key is compared, digest with digest, so that the time taken tells nothing of any."""
        scheme, _, key = authorization.partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(given, known) for known in self.rules.keys]
        return scheme.lower() == b"bearer" and any(matches)

    async def _receive(self, body: bytearray, receive: Receive) -> None:
        try:
            async with asyncio.timeout(self.rules.seconds):
                async for part in _parts(receive):
                    self._hold(body, part)
        except TimeoutError:
            what = f"the request's body did not arrive within {self.rules.seconds:g} s"
            raise Refusal(408, what, code="body_timeout") from None

    def _hold(self, body: bytearray, part: bytes) -> None:
        if len(body) + len(part) > self.rules.max_body:
            raise self._too_large()
        if self._held + len(part) > BODIES * self.rules.max_body:
            raise Refusal(429, "too many large requests at a time; try again later", code="too_much_at_once")
        body += part
        self._held += len(part)

    def _too_large(self) -> Refusal:
        what = f"the request's body is larger than {self.rules.max_body} bytes (serve.max_body_mib)"
        return Refusal(413, what, code="body_too_large")


class Answer:
    """`send`, and whether a response has begun."""

    def __init__(self, send: Send):
        self._send, self.started = send, False

    async def send(self, message: Message) -> None:
        self.started = self.started or message["type"] == "http.response.start"
        await self._send(message)


async def _parts(receive: Receive):
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    given = False

    async def whole() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return whole


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """The whole answer at once; then what the client still sends is thrown away, and the connection closed."""
    waits = any(name == b"expect" for name, _ in scope["headers"])
    refusal.headers["connection"] = "close"
    response = refusal.response()
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    if not waits and refusal.status != 408:
        await _discard(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    dropped = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            async for part in _parts(receive):
                dropped += len(part)
                if dropped > LINGER_BYTES:
                    return
    except (TimeoutError, ClientGone):
        return


def host_name(host: bytes) -> str:
    """A Host header's name, without port and brackets, in lower case; empty where it is none."""
    found = HOST.fullmatch(host.decode("latin-1").strip().lower())
    return (found[1] or found[2]) if found else ""


def digests(keys: list[str]) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)
