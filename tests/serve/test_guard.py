"""The server under attack: whatever is sent, an honest answer or a closed connection, and nobody else waits."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from common.errors import UserError
from serve.access import rules
from serve.api.guard import BODIES, Guard, Rules
from serve.config import ServeConfig
from tests.serve.conftest import Server, await_ready, start, write_job

KEYS = ["sk-first", "sk-zweite-ü"]
SITE = "https://studio.example"
BODY = {"model": "tiny", "prompt": "a", "max_tokens": 2}


@pytest.fixture(scope="module")
def strict(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with keys, few connections, short patience and small bodies."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "keys").write_text("# ours\n" + "\n".join(KEYS) + "\n\n", encoding="utf-8")
    limits: dict[str, Any] = {"client_seconds": 1, "max_body_mib": 1, "max_connections": 20, "drain_seconds": 20}
    names = {"api_keys": str(folder / "keys"), "allowed_hosts": ["chips.lan"], "cors_origins": [SITE]}
    process = start(write_job(folder, model_folder, slots=2, max_length=1024, decode_steps=2, **limits, **names))
    try:
        yield await_ready(process, folder / "out")
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors, errors


def raw(server: Server, *parts: bytes, wait: float = 0) -> bytes:
    """What comes back, until the server closes, for bytes sent one after another."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as link:
        try:
            for part in parts:
                link.sendall(part)
                time.sleep(wait)
        except (BrokenPipeError, ConnectionResetError):
            pass
        found = b""
        try:
            while more := link.recv(65536):
                found += more
        except ConnectionResetError:
            pass
        return found


def head(*lines: str, path: str = "/v1/completions", key: str = KEYS[0], close: bool = True) -> bytes:
    common = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    common += [f"Authorization: Bearer {key}", *(["Connection: close"] if close else [])]
    return ("\r\n".join([*common, *lines]) + "\r\n\r\n").encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def alive(server: Server) -> bool:
    return httpx.get(f"http://127.0.0.1:{server.port}/health").status_code == 200


def test_keys_open_all_but_health(strict: Server) -> None:
    base = f"http://127.0.0.1:{strict.port}"
    for authorization in (
        None,
        "Bearer",
        "Bearer wrong",
        "Basic sk-first",
        "sk-first",
        "Bearer sk-first2",
        b"Bearer \xff",
    ):
        headers: Any = {"authorization": authorization} if authorization else {}
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
            refused = httpx.get(base + path, headers=headers)
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["code"] == "invalid_api_key"
    for key in KEYS:
        assert httpx.get(f"{base}/v1/models", headers={b"authorization": f"Bearer {key}".encode()}).status_code == 200
    assert {httpx.get(base + path).status_code for path in ("/health", "/ready")} == {200}


def test_other_names_are_not_this_server(strict: Server) -> None:
    base = f"http://127.0.0.1:{strict.port}"
    for host in (
        "evil.example",
        "localhost.evil.example:80",
        "127.0.0.1.nip.io",
        "[::1].evil.example",
        "localhost:x",
        "",
    ):
        assert httpx.get(f"{base}/health", headers={"host": host}).status_code == 403, host
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80", "chips.lan", "chips.lan.:443"):
        assert httpx.get(f"{base}/health", headers={"host": host}).status_code == 200, host


def test_cors_is_for_the_sites_named(strict: Server, server: Server) -> None:
    asked = {"origin": SITE, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    url = f"http://127.0.0.1:{strict.port}/v1/completions"
    assert httpx.options(url, headers=asked).headers["access-control-allow-origin"] == SITE
    refused = httpx.options(url, headers={**asked, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
    plain = httpx.options(f"{server.url}/completions", headers=asked)
    assert plain.status_code == 405 and "access-control-allow-origin" not in plain.headers
    page = httpx.post(f"{server.url}/completions", content=json.dumps(BODY), headers={"content-type": "text/plain"})
    assert page.status_code == 415


def test_large_bodies_are_413_however_they_are_sent(strict: Server) -> None:
    much = b'{"model": "tiny", "prompt": "' + b"a" * (8 << 20) + b'"}'
    headers: Any = {"authorization": f"Bearer {KEYS[0]}", "content-type": "application/json"}
    assert httpx.post(f"{strict.url}/completions", content=much, headers=headers).status_code == 413
    chunks = (much[i : i + 65536] for i in range(0, len(much), 65536))
    assert httpx.post(f"{strict.url}/completions", content=chunks, headers=headers).status_code == 413
    assert status(raw(strict, head("Content-Length: 99999999999", "Expect: 100-continue"))) == 413
    assert alive(strict)


def test_bodies_that_do_not_end_are_given_up(strict: Server) -> None:
    assert status(raw(strict, head("Content-Length: 500"), b'{"model"')) == 408
    assert status(raw(strict, head("Transfer-Encoding: chunked"), *[b"1\r\na\r\n"] * 12, wait=0.2)) == 408
    assert alive(strict)


def test_heads_that_do_not_end_are_closed(strict: Server) -> None:
    assert raw(strict) == b""
    assert raw(strict, *(bytes([byte]) for byte in b"GET /health HTTP/1.1\r\nHost: a"), wait=0.1) == b""
    assert status(raw(strict, head("X: " + "a" * 200_000))) == 400
    idle = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert status(raw(strict, idle)) == 200
    assert raw(strict, idle, b"G", wait=0.2).count(b"HTTP/1.1") == 1
    assert alive(strict)


def test_what_is_no_http_is_400(strict: Server) -> None:
    good = json.dumps(BODY).encode()
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        head("Content-Length: -5"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: 99999999999999999999999"),
        head("Transfer-Encoding: gzip"),
    ):
        assert status(raw(strict, sent)) == 400, sent
    short = raw(strict, head(f"Content-Length: {len(good) - 5}", close=False) + good)
    assert status(short) == 400 and b"HTTP/1.1 5" not in short
    assert b"HTTP/1.1 5" not in raw(strict, head("Transfer-Encoding: chunked") + b"zz\r\n")
    assert alive(strict)


def test_pipelined_requests_are_answered_in_turn(strict: Server) -> None:
    good = json.dumps(BODY).encode()
    one = head(f"Content-Length: {len(good)}", close=False) + good
    last = head(f"Content-Length: {len(good)}") + good
    found = raw(strict, one * 3 + last)
    assert found.count(b"HTTP/1.1 200") == 4 and found.count(b"text_completion") == 4


def open_files(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_an_answer_that_is_not_read_is_given_up(strict: Server) -> None:
    body = {**BODY, "n": 8, "max_tokens": 1000, "ignore_eos": True, "stream": True, "logprobs": 1}
    content, before = json.dumps(body).encode(), open_files(strict)
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        link.connect(("127.0.0.1", strict.port))
        link.sendall(head(f"Content-Length: {len(content)}") + content)
        assert link.recv(8) == b"HTTP/1.1"
        end = time.monotonic() + 60
        while open_files(strict) > before:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert alive(strict)


def test_more_connections_than_allowed_are_told(strict: Server) -> None:
    links = [socket.create_connection(("127.0.0.1", strict.port), timeout=30) for _ in range(40)]
    try:
        assert status(links[-1].recv(4096)) == 429
    finally:
        for link in links:
            link.close()
    end = time.monotonic() + 60
    while not alive(strict):
        assert time.monotonic() < end


def test_a_drain_ends_what_is_open_and_takes_nothing_new(model_folder: Path, tmp_path: Path) -> None:
    process = start(write_job(tmp_path, model_folder, slots=2, max_length=128, decode_steps=1, drain_seconds=60))
    served = await_ready(process, tmp_path / "out")
    base = f"http://127.0.0.1:{served.port}"
    body = {**BODY, "n": 20, "max_tokens": 120, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{served.url}/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 60
        while httpx.get(f"{base}/ready").status_code != 503:
            assert time.monotonic() < end
        assert served.post("completions", BODY).status_code == 503
        assert httpx.get(f"{base}/health").status_code == 200
        assert [line for line in lines if line][-1] == "data: [DONE]"
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("Traceback")) == (0, 0), errors


def test_a_drain_that_takes_too_long_is_cut_and_said(model_folder: Path, tmp_path: Path) -> None:
    process = start(write_job(tmp_path, model_folder, slots=1, max_length=128, decode_steps=1, drain_seconds=0))
    served = await_ready(process, tmp_path / "out")
    body = {**BODY, "n": 128, "max_tokens": 120, "ignore_eos": True}
    content = json.dumps(body).encode()
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=60) as link,
        httpx.stream("POST", f"{served.url}/completions", json={**body, "stream": True}, timeout=60) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        link.sendall(head(f"Content-Length: {len(content)}") + content)
        served.await_metric("tapeout_requests_waiting", 2)
        process.send_signal(signal.SIGTERM)
        assert "shutting down" in "".join(lines)
        said = b"".join(iter(lambda: link.recv(65536), b"")).decode()
        assert said.startswith("HTTP/1.1 503") and "shutting down" in said
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("Traceback")) == (0, 0), errors


def test_open_to_all_is_warned_of_and_keys_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rules(ServeConfig(host="localhost"), "127.0.0.1").hosts and rules(ServeConfig(host="::1"), "::1").hosts
    assert capsys.readouterr().err == ""
    assert rules(ServeConfig(host="0.0.0.0"), "0.0.0.0").hosts is None
    assert "warning: serve.host 0.0.0.0" in capsys.readouterr().err
    with pytest.raises(UserError, match="API keys cannot be read"):
        rules(ServeConfig(api_keys=str(tmp_path / "none")), "127.0.0.1")


def test_bodies_held_at_a_time_are_bounded() -> None:
    """As many of the largest as may be held wait for their answers; one more byte is refused until they have them."""
    halt = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await halt.wait()
        await Response("ok")(scope, receive, send)

    async def crowd() -> None:
        transport = httpx.ASGITransport(Guard(app, Rules(None, (), 100, 30)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            waiting = [asyncio.create_task(client.post("/", content=b"a" * 100)) for _ in range(BODIES)]
            while (refused := await asyncio.wait_for(client.post("/", content=b"a"), 60)).status_code != 429:
                pass
            assert refused.json()["error"]["code"] == "too_much_at_once" and refused.headers["retry-after"]
            halt.set()
            assert {(await one).status_code for one in waiting} == {200}
            assert (await client.post("/", content=b"a" * 100)).status_code == 200

    asyncio.run(crowd())


def test_clients_are_as_many_as_files_may_be_open() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({}, {})); "
    code += "from serve.access import room_for; print(room_for(200))"
    for soft, hard, room in ((100, 100, 36), (100, 4096, 200), (100, 200, 136)):
        found = subprocess.run([sys.executable, "-c", code.format(soft, hard)], capture_output=True, text=True)
        assert found.stdout == f"{room}\n" and ("warning" in found.stderr) == (room < 200), found.stderr
