"""What real clients send and expect: neutral fields, their own returned objects, plain HTTP manners."""

import asyncio
import json
import threading
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.text.prompt import load_tokenizer, prompt_ids
from serve.api import fields
from tests.serve.conftest import MAX_LENGTH, MAX_WAITING, Server

TURN: Any = [{"role": "user", "content": "a counter"}]
CHAT = {"model": "tiny", "messages": TURN, "max_tokens": 2}
TEXT = {"model": "tiny", "prompt": "module", "max_tokens": 2}
ENDPOINTS = {"chat/completions": (CHAT, fields.CHAT), "completions": (TEXT, fields.TEXT)}
NEUTRAL = [
    (path, field.name, value)
    for path, (_, known) in ENDPOINTS.items()
    for field in known
    for value in (*field.neutral, *({str: ("any", ""), dict: ({}, {"run": "7"})}[field.label] if field.label else ()))
]


def chat(server: Server, messages: list[Any], **more: Any) -> httpx.Response:
    return server.post("chat/completions", {**CHAT, "messages": messages, **more})


def error(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"} and found["message"]
    return found


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_field_at_its_neutral_value_is_taken(server: Server, path: str) -> None:
    body, known = ENDPOINTS[path]
    plain = server.post(path, {**body, "seed": 5}).json()["choices"]
    for _, name, value in (one for one in NEUTRAL if one[0] == path):
        answer = server.post(path, {**body, "seed": 5, name: value})
        assert answer.status_code == 200, (name, value, answer.text)
        assert answer.json()["choices"] == plain, name
    every = {field.name: field.neutral[0] for field in known if field.neutral}
    assert server.post(path, {**body, **every}).status_code == 200
    assert server.post(path, {**body, **{field.name: None for field in known}}).status_code == 200


def others(field: fields.Known) -> st.SearchStrategy[Any]:
    """Values of any JSON type that the field does not take."""
    scalars = st.booleans() | st.integers(-3, 9) | st.floats(0, 3) | st.sampled_from(["", "auto", "json", "required"])
    values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(["type", "7"]), scalars)
    return values.filter(lambda value: value is not None and not field.takes(value))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_value_is_refused_by_name(server: Server, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(ENDPOINTS)))
    body, known = ENDPOINTS[path]
    field = data.draw(st.sampled_from(known))
    found = error(server.post(path, {**body, field.name: data.draw(others(field))}))
    assert found["param"] == field.name and field.name in found["message"]


def test_true_is_not_one_and_unknown_names_are_refused() -> None:
    table = {field.name: field for field in fields.CHAT}
    assert not table["min_tokens"].takes(False) and not table["repetition_penalty"].takes(True)
    assert not table["store"].takes(0) and table["top_k"].takes(-1.0)


def test_an_unknown_field_is_refused_by_name(server: Server) -> None:
    assert error(server.post("completions", {**TEXT, "warp": 1}))["param"] == "warp"
    assert (
        "stream_options.warp" in error(server.post("completions", {**TEXT, "stream_options": {"warp": 1}}))["message"]
    )


def test_two_turns_with_the_clients_own_objects(server: Server) -> None:
    asked: Any = {"model": "tiny", "max_tokens": 4, "seed": 1}
    first = server.client.chat.completions.create(messages=TURN, **asked)
    more: Any = [*TURN, first.choices[0].message, {"role": "user", "content": "again"}]
    assert server.client.chat.completions.create(messages=more, **asked).choices[0].message.role == "assistant"
    dumped: Any = [*TURN, first.choices[0].message.model_dump(), {"role": "user", "content": "again"}]
    assert server.client.chat.completions.create(messages=dumped, **asked).choices

    async def converse() -> str | None:
        async with server.async_client() as client:
            said = await client.chat.completions.create(messages=TURN, **asked)
            turns: Any = [*TURN, said.choices[0].message, {"role": "user", "content": "again"}]
            return (await client.chat.completions.create(messages=turns, **asked)).choices[0].finish_reason

    assert asyncio.run(converse()) in ("stop", "length")


NULLS = ("refusal", "tool_calls", "function_call", "audio", "annotations", "name", "reasoning", "reasoning_content")


def test_null_and_empty_parts_of_a_message_are_absent(server: Server) -> None:
    def ids(message: dict[str, Any]) -> list[int]:
        answer = chat(server, [*TURN, message, *TURN], return_token_ids=True)
        assert answer.status_code == 200, answer.text
        return answer.json()["prompt_token_ids"]

    plain = ids({"role": "assistant", "content": "yes"})
    for name in NULLS:
        assert ids({"role": "assistant", "content": "yes", name: None}) == plain
    for name, value in {"refusal": "", "tool_calls": [], "annotations": [], "name": "bot"}.items():
        assert ids({"role": "assistant", "content": "yes", name: value}) == plain
    empty = ids({"role": "assistant", "content": ""})
    assert ids({"role": "assistant", "content": None}) == ids({"role": "assistant"}) == empty
    assert ids({"role": "assistant", "content": None, "tool_calls": None}) == empty


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": None},
        {"role": "system"},
        {"role": "user", "content": []},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "assistant", "content": "x", "refusal": "no"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
        {"role": "user", "content": 7},
        "hello",
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_messages_that_would_lose_something_are_refused(server: Server, message: Any) -> None:
    found = error(chat(server, [*TURN, message]))
    assert found["param"] == "messages" and found["message"].startswith("messages.1")
    assert "Tuple" not in found["message"] and "ChatMessage" not in found["message"]


def test_developer_is_system(server: Server) -> None:
    def ids(role: str) -> list[int]:
        return chat(server, [{"role": role, "content": "be brief"}, *TURN], return_token_ids=True).json()[
            "prompt_token_ids"
        ]

    assert ids("developer") == ids("system")


REPLAYED: list[dict[str, Any]] = [
    {"repetition_penalty": 1.0, "logprobs": None, "ignore_eos": True, "stream_options": {"include_usage": True}},
    {"ignore_eos": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "frequency_penalty": 0.0, "best_of": 1},
]


@pytest.mark.parametrize("more", REPLAYED, ids=["vllm", "guidellm", "sampling"])
def test_load_generators_requests_stream_to_their_end(server: Server, more: dict[str, Any]) -> None:
    with httpx.stream("POST", f"{server.url}/completions", json={**TEXT, "stream": True, **more}, timeout=60) as answer:
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache" and answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    if more.get("stream_options"):
        assert events[-1]["usage"]["completion_tokens"] == 2 and events[-1]["choices"] == []
    if (more.get("stream_options") or {}).get("continuous_usage_stats"):
        counts = [event["usage"]["completion_tokens"] for event in events]
        assert counts == sorted(counts) and counts[0] >= 1


def test_many_stops(server: Server) -> None:
    stops = [f"\n{word}" for word in ("class", "def", "#", "if", "print", "assert")] + ["<eos>"]
    assert server.post("completions", {**TEXT, "stop": stops}).status_code == 200
    for wrong in (["x"] * 257, ["x" * 1025], [3], [""], {"a": 1}):
        found = error(server.post("completions", {**TEXT, "stop": wrong}))
        assert found["param"] == "stop" and "uple" not in found["message"]


def test_models_are_retrieved_by_name(server: Server) -> None:
    assert server.client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as caught:
        server.client.models.retrieve("org/other")
    assert caught.value.code == "model_not_found"
    assert error(httpx.get(f"{server.url}/models/" + "x" * 5000), 404)["message"].count("x") < 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/v1/models/tiny", "/metrics", "/openapi.json"])
def test_head_is_get_without_a_body_and_405_names_what_is_allowed(server: Server, path: str) -> None:
    base = f"http://127.0.0.1:{server.port}"
    got, head = httpx.get(base + path), httpx.head(base + path)
    assert (head.status_code, head.content) == (got.status_code, b"") and got.status_code == 200
    assert head.headers["content-type"] == got.headers["content-type"]
    for method in ("OPTIONS", "POST", "DELETE", "PATCH"):
        refused = httpx.request(method, base + path)
        error(refused, 405)
        assert {"GET", "HEAD"} == {name.strip() for name in refused.headers["allow"].split(",")}
    assert httpx.head(base + "/v1/completions").headers["allow"] == "POST"


def test_a_prompt_that_is_too_long_by_itself_is_said_so(server: Server) -> None:
    found = error(
        server.post("chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "a " * 300}]})
    )
    assert (found["param"], found["code"]) == ("messages", "context_length_exceeded")
    assert "max_tokens" not in found["message"] and str(MAX_LENGTH) in found["message"]
    found = error(chat(server, TURN, max_tokens=MAX_LENGTH))
    assert (found["param"], found["code"]) == ("max_tokens", "context_length_exceeded")
    asked = {"model": "tiny", "messages": TURN, "max_completion_tokens": MAX_LENGTH}
    assert error(server.post("chat/completions", asked))["param"] == "max_completion_tokens"
    assert error(server.post("completions", {**TEXT, "prompt": [7] * (MAX_LENGTH + 1)}))["param"] == "prompt"


@pytest.mark.parametrize("more", [{"prompt": ["a"] * (MAX_WAITING + 1)}, {"prompt": ["a"] * 2, "n": 100}])
def test_more_samples_than_can_ever_wait_are_no_promise(server: Server, more: dict[str, Any]) -> None:
    assert str(MAX_WAITING) in error(server.post("completions", {**TEXT, **more}))["message"]


def test_samples_not_prompts_count_against_the_queue(server: Server) -> None:
    body = {**TEXT, "n": 120, "max_tokens": 160, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()  # held: httpx hangs up when it is collected
        assert next(lines).startswith("data: ")
        refused = server.post("completions", {**TEXT, "n": 100})
        assert error(refused, 429)["code"] == "queue_full" and refused.headers["retry-after"]
        assert server.post("completions", TEXT).status_code == 200
    server.await_metric("tapeout_samples_running", 0)


def test_tokenize_and_detokenize(server: Server, model_folder: Any) -> None:
    base = f"http://127.0.0.1:{server.port}"
    tokenizer = load_tokenizer(str(model_folder))
    text = "module Ünïcode 🙂 reg"
    found = httpx.post(f"{base}/tokenize", json={"model": "tiny", "prompt": text}).json()
    assert found == {
        "count": len(found["tokens"]),
        "max_model_len": MAX_LENGTH,
        "tokens": tokenizer(text).input_ids,
        "token_strs": None,
    }
    bare = {"prompt": text, "add_special_tokens": False, "return_token_strs": True}
    without = httpx.post(f"{base}/tokenize", json=bare).json()
    assert without["tokens"] == found["tokens"][1:] and len(without["token_strs"]) == without["count"]
    back = httpx.post(f"{base}/detokenize", json={"model": "tiny", "tokens": without["tokens"]}).json()
    assert back == {"prompt": text}
    asked = httpx.post(f"{base}/tokenize", json={"messages": TURN}).json()["tokens"]
    assert asked == prompt_ids(tokenizer, TURN)
    for body in ({}, {"prompt": "a", "messages": TURN}, {"prompt": 3}, {"prompt": "a" * 10**6}):
        error(httpx.post(f"{base}/tokenize", json=body))
    for tokens in ([-1], [10**9], ["a"], None, [10**30]):
        error(httpx.post(f"{base}/detokenize", json={"tokens": tokens}))
    error(httpx.post(f"{base}/tokenize", json={"model": "other", "prompt": "a"}), 404)


def test_the_openapi_document_is_true(server: Server) -> None:
    base = f"http://127.0.0.1:{server.port}"
    document = httpx.get(f"{base}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            answer = httpx.request(method, base + path.format(name="tiny"), json={} if method == "post" else None)
            assert str(answer.status_code) in told["responses"], path
            kind = answer.headers["content-type"].split(";")[0]
            assert kind in told["responses"][str(answer.status_code)]["content"], path
    assert {"200", "400", "404", "413", "429", "503"} <= set(document["paths"]["/v1/completions"]["post"]["responses"])
    assert list(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
    known = document["components"]["schemas"]["ChatBody"]["properties"]
    assert {field.name for field in fields.CHAT} <= set(known)


def test_a_huge_prompt_does_not_silence_the_others(server: Server) -> None:
    """While texts of megabytes are posted one after another, a stream goes on and ends whole."""
    halt, statuses = threading.Event(), []
    body = {**TEXT, "prompt": "module TopModule " * 200_000}

    def flood() -> None:
        while not halt.is_set():
            statuses.append(server.post("completions", body).status_code)

    other = threading.Thread(target=flood)
    other.start()
    try:
        asked: Any = {"model": "tiny", "prompt": "a", "max_tokens": 100, "stream": True}
        events = list(server.client.completions.create(**asked, extra_body={"ignore_eos": True}))
    finally:
        halt.set()
        other.join()
    assert events[-1].choices[0].finish_reason == "length"
    assert statuses and set(statuses) == {400}
