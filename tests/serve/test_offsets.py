"""Where tokens stand in a text, the same in a stream, and their bytes. And requests that are no text."""

import json
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from tests.serve.conftest import Server

PROMPT = "module counter  input é"


def asked(server: Server, **body: Any) -> Any:
    answer = server.post("completions", {"model": "tiny", "prompt": PROMPT, "logprobs": 1, "seed": 3, **body})
    assert answer.status_code == 200, answer.text
    return answer


def test_offsets_in_a_stream_are_those_of_the_whole(server: Server) -> None:
    body = {"n": 2, "max_tokens": 40, "temperature": 1.5, "ignore_eos": True}
    whole = asked(server, **body).json()["choices"]
    streamed: list[dict[str, list[Any]]] = [{"text_offset": [], "tokens": [], "token_logprobs": []} for _ in whole]
    for line in asked(server, **body, stream=True).text.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                for key, values in streamed[choice["index"]].items():
                    values += choice["logprobs"][key]
    for one, two in zip(whole, streamed, strict=True):
        assert {key: one["logprobs"][key] for key in two} == two
        assert len(two["tokens"]) == 40
        for start, token in zip(two["text_offset"], two["tokens"], strict=True):
            special = token.startswith("<") and token.endswith(">")
            assert "\ufffd" in token or special or one["text"][start : start + len(token)] == token


@pytest.mark.parametrize("prompt", [PROMPT, "<|turn> a", None])
def test_offsets_of_an_echo_point_into_its_text(server: Server, model_folder: Any, prompt: str | None) -> None:
    ids = AutoTokenizer.from_pretrained(model_folder)(PROMPT).input_ids
    body = {"prompt": prompt or ids, "echo": True, "max_tokens": 5, "temperature": 0, "return_token_ids": True}
    (choice,) = asked(server, **body).json()["choices"]
    tokens, starts = choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]
    assert choice["text"].startswith(prompt or "<bos>module") and starts[0] == 0 and starts == sorted(starts)
    pointed = [choice["text"][start : start + len(token)] == token for start, token in zip(starts, tokens, strict=True)]
    unseen = [
        token in ("<bos>", "<eos>", "<pad>", "<unk>", "<|turn>", "<turn|>") or "\ufffd" in token for token in tokens
    ]
    assert all(right or hidden for right, hidden in zip(pointed, unseen, strict=True)) and sum(pointed) >= 3
    assert pointed[0] == (prompt is None)


def test_the_bytes_of_parts_of_characters_are_the_characters(server: Server) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 1}
    body |= {"n": 4, "max_tokens": 60, "temperature": 2.0, "seed": 5, "ignore_eos": True}
    parts = 0
    for choice in server.post("chat/completions", body).json()["choices"]:
        entries = [entry for entry in choice["logprobs"]["content"] if entry["token"] != "<unk>"]
        shown = [entry for entry in entries if not (entry["token"].startswith("<") and entry["token"].endswith(">"))]
        said = bytes(byte for entry in shown for byte in entry["bytes"]).decode(errors="replace")
        assert said == choice["message"]["content"]
        parts += sum("\ufffd" in entry["token"] and len(entry["bytes"]) == 1 for entry in entries)
    assert parts > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", '{"model": "tiny", "prompt": "\\udcf0", "max_tokens": 2}'),
        ("completions", '{"model": "tiny", "prompt": ["a", "b\\ud83d"], "max_tokens": 2}'),
        ("completions", '{"model": "tiny", "prompt": "a", "max_tokens": 2, "stop": "\\ude00"}'),
        ("completions", '{"model": "tin\\ud83d", "prompt": "a", "max_tokens": 2}'),
        ("completions", '{"model": "tiny", "prompt": "a", "max_tokens": 2, "\\ud83d": 1}'),
        ("chat/completions", '{"model": "tiny", "messages": [{"role": "user", "content": "cut \\ud83d"}]}'),
        (
            "chat/completions",
            '{"model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": "\\ud83d"}]}]}',
        ),
    ],
)
def test_half_a_surrogate_pair_is_no_text(server: Server, path: str, body: str) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/{path}", content=body, headers=headers, timeout=60)
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error", answer.text
