"""Bodies that are broken, and how much of what is wrong is told."""

import httpx
import pytest
from pydantic import ValidationError

from serve.api import protocol
from serve.api.bodies import read_json
from tests.serve.conftest import Server

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


TURNS = b'"model": "t", "messages": '
FAULTS: dict[str, tuple[type[protocol.Part], bytes]] = {
    "prompts": (protocol.TextBody, b'{"model": "t", "prompt": [%s]}' % (b"null, " * 999 + b"null")),
    "lists of ids": (protocol.TextBody, b'{"model": "t", "prompt": [[7], %s]}' % (b"[0.5], " * 999 + b"[0.5]")),
    "stops": (protocol.TextBody, b'{"model": "t", "prompt": "a", "stop": [%s]}' % (b'"", ' * 200 + b"0")),
    "messages": (protocol.ChatBody, b"{%s[%s]}" % (TURNS, b"0, " * 999 + b"{}")),
    "parts": (protocol.ChatBody, b'{%s[{"role": "user", "content": [%s]}]}' % (TURNS, b"0, " * 999 + b"{}")),
    "turns to tokenize": (protocol.TokenizeBody, b'{"messages": [%s]}' % (b"0, " * 999 + b"{}")),
    "ids": (protocol.DetokenizeBody, b'{"tokens": [%s]}' % (b"0.5, " * 999 + b"0.5")),
    "names": (protocol.DetokenizeBody, b'{"tokens": [1]%s}' % b"".join(b', "x%d": 1' % i for i in range(999))),
}


@pytest.mark.parametrize("name", FAULTS)
def test_of_many_faults_the_first_is_told(name: str) -> None:
    """A body of megabytes holds millions of them: gathered, they took gigabytes."""
    kind, content = FAULTS[name]
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(read_json(content))
    assert caught.value.error_count() == 1


def test_invalid_json_says_where(server: Server) -> None:
    kind = {"content-type": "application/json"}
    found = httpx.post(f"{server.url}/completions", content=BROKEN["line two"], headers=kind).json()["error"]
    assert "line 2, column 10" in found["message"] and found["param"] is None
