"""The server under attack: whatever is sent, an honest answer or a closed connection, and nobody else waits."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

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
    for host in ("evil.example", "localhost.evil.example:80", "127.0.0.1.nip.io", ""):
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


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"model": "tiny", ',
    "line two": b'{\n"model": }',
    "not utf-8": b'{"model": "tiny", "prompt": "\xff\xfe"}',
    "utf-16": '{"model": "tiny"}'.encode("utf-16"),
    "deep": b"[" * 200_000,
    "deep object": b'{"a":' * 50_000,
    "nan": b'{"model": "tiny", "prompt": "a", "temperature": NaN}',
    "infinity": b'{"model": "tiny", "prompt": "a", "temperature": -Infinity}',
    "too large a float": b'{"model": "tiny", "prompt": "a", "temperature": 1e999}',
    "huge int": b'{"model": "tiny", "prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}",
    "large int": b'{"model": "tiny", "prompt": "a", "max_tokens": 1' + b"0" * 4000 + b"}",
    "large seed": b'{"model": "tiny", "prompt": "a", "seed": 1' + b"0" * 400 + b"}",
    "twice": b'{"model": "tiny", "prompt": "a", "prompt": "b"}',
    "half a pair": b'{"model": "tiny", "prompt": "\\udcf0"}',
    "half a pair within": b'{"model": "tiny", "prompt": ["a", "\\uD83D"]}',
    "half a pair as a name": b'{"model": "tiny", "\\ud83d": 1}',
    "array": b"[]",
    "null": b"null",
    "text": b'"hello"',
    "ids of no vocabulary": b'{"model": "tiny", "prompt": [1' + b"0" * 400 + b"]}",
    "booleans as ids": b'{"model": "tiny", "prompt": [true, false]}',
}


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_bodies_are_400(server: Server, path: str, name: str) -> None:
    url, kind = f"{server.url}/{path}", {"content-type": "application/json"}
    answer = httpx.post(url, content=BROKEN[name], headers=kind, timeout=60)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_invalid_json_says_where(server: Server) -> None:
    kind = {"content-type": "application/json"}
    found = httpx.post(f"{server.url}/completions", content=BROKEN["line two"], headers=kind).json()["error"]
    assert "line 2, column 10" in found["message"] and found["param"] is None


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
    process = start(write_job(tmp_path, model_folder, slots=2, max_length=176, decode_steps=1, drain_seconds=60))
    served = await_ready(process, tmp_path / "out")
    base = f"http://127.0.0.1:{served.port}"
    body = {**BODY, "n": 20, "max_tokens": 170, "ignore_eos": True, "stream": True}
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


@pytest.mark.parametrize("stream", [False, True])
def test_a_drain_that_takes_too_long_is_cut_and_said(model_folder: Path, tmp_path: Path, stream: bool) -> None:
    process = start(write_job(tmp_path, model_folder, slots=1, max_length=176, decode_steps=1, drain_seconds=0))
    served = await_ready(process, tmp_path / "out")
    body = {**BODY, "n": 128, "max_tokens": 170, "ignore_eos": True, "stream": stream}
    with httpx.Client(timeout=60) as client:
        request = client.build_request("POST", f"{served.url}/completions", json=body)
        if stream:
            answer = client.send(request, stream=True)
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            said = "".join(lines)
        else:
            with socket.create_connection(("127.0.0.1", served.port), timeout=60) as link:
                content = json.dumps(body).encode()
                link.sendall(head(f"Content-Length: {len(content)}") + content)
                served.await_metric("tapeout_samples_running", 1)
                process.send_signal(signal.SIGTERM)
                said = link.recv(65536).decode()
            assert said.startswith("HTTP/1.1 503")
        assert "shutting down" in said
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("Traceback")) == (0, 0), errors


def test_open_to_all_is_warned_of_and_keys_must_be_there(model_folder: Path, tmp_path: Path) -> None:
    process = start(write_job(tmp_path, model_folder, host="0.0.0.0", api_keys=str(tmp_path / "none")))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "API keys cannot be read" in errors
    small: dict[str, Any] = {"slots": 1, "max_length": 16, "decode_steps": 1}
    process = start(write_job(tmp_path, model_folder, host="0.0.0.0", **small))
    served = await_ready(process, tmp_path / "out")
    assert httpx.get(f"http://127.0.0.1:{served.port}/health", headers={"host": "any.example"}).status_code == 200
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "warning: serve.host 0.0.0.0" in errors
