"""Servers of other makes: what they refuse, what they answer with, what they say of themselves; all over HTTP."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Benchmark
from common.errors import UserError
from eval.config import EvalConfig, EvalInputs
from eval.endpoint.client import Client
from eval.endpoint.reply import Retry, Unusable, choices_of
from eval.journal import Sample
from eval.stage import run

Serve = Callable[[Any], AbstractContextManager[str]]
Reply = Callable[[dict[str, Any]], tuple[int, Any] | None]


@pytest.fixture
def benchmark(benchmark_folder: Path) -> Benchmark:
    return load_benchmark(str(benchmark_folder))


def _ask(benchmark: Benchmark, url: str, **options: Any) -> tuple[list[Sample], list[str]]:
    async def ask() -> tuple[list[Sample], list[str]]:
        config = EvalConfig.model_validate({"benchmark": "b", "samples": 2} | options)
        async with Client(url, "m", config, first_pause_s=0.0) as client:
            found = await asyncio.gather(*(client.samples(problem, set()) for problem in benchmark.problems))
            return [row for rows in found for row in rows], client.left_out

    return asyncio.run(ask())


def _message(message: dict[str, Any], **more: Any) -> Reply:
    def reply(payload: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"choices": [{"index": i, "message": message, **more} for i in range(payload["n"])]}

    return reply


def _refuses(name: str, body: Any, status: int = 400) -> Reply:
    return lambda payload: (status, body) if name in payload else None


def _openai(words: str, param: str | None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": words, "type": "invalid_request_error", "param": param, "code": code}}


REFUSALS = {
    "OpenAI's reasoning models": (
        "max_tokens",
        400,
        _openai("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'.", "max_tokens"),
    ),
    "the same without a parameter": (
        "max_tokens",
        400,
        _openai("max_tokens is not supported with this model, use max_completion_tokens instead", None),
    ),
    "no seed": ("seed", 400, _openai("Unrecognized request argument supplied: seed", None)),
    "no seed, in pydantic's words": (
        "seed",
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
    ),
    "no seed, in plain words": ("seed", 400, {"message": "property 'seed' is unsupported"}),
    "one temperature": (
        "temperature",
        400,
        _openai("Unsupported value: 'temperature' does not support 0.8 with this model.", "temperature"),
    ),
    "no top_p": ("top_p", 400, _openai("Unsupported parameter: 'top_p' is not supported with this model.", "top_p")),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_parameter_that_the_server_does_not_know_is_left_out_and_said(
    kind: str, benchmark: Benchmark, behave: Any, serve_openai: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    name, status, body = REFUSALS[kind]
    behaviour = behave(lambda payload, i: "ok", reply=_refuses(name, body, status))
    with serve_openai(behaviour) as url:
        rows, left_out = _ask(benchmark, url, max_tokens=77)
    last = behaviour.payloads[-1]
    assert len(rows) == 6 and left_out == [name] and name not in last and name in capsys.readouterr().err
    assert last.get("max_tokens", last.get("max_completion_tokens")) == 77
    assert all(key in last for key in ("n", "messages", "model"))


def test_several_are_left_out_in_turn(benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    def reply(payload: dict[str, Any]) -> tuple[int, Any] | None:
        for name in ("max_tokens", "temperature", "top_p", "seed"):
            if name in payload:
                return 400, _openai(f"Unsupported parameter: {name!r}", name, "unsupported_parameter")
        return None

    behaviour = behave(lambda payload, i: "ok", reply=reply)
    with serve_openai(behaviour) as url:
        rows, left_out = _ask(benchmark, url, concurrency=1)
    assert len(rows) == 6 and left_out == ["max_tokens", "temperature", "top_p", "seed"]
    assert set(behaviour.payloads[-1]) == {"model", "messages", "n", "max_completion_tokens"}


STOPS = {
    "a context that is too short": (
        400,
        _openai("This model's maximum context length is 1024 tokens, you requested 1500 (max_tokens 512)", None),
        "maximum context length",
    ),
    "a limit": (
        400,
        _openai("max_tokens is too large: 4096. This model supports at most 2048", "max_tokens"),
        "too large",
    ),
    "no such model": (404, _openai("The model `m` does not exist", "model", "model_not_found"), "does not exist"),
    "no such path": (404, b"<html>Not Found</html>", "HTTP 404"),
    "no key": (401, _openai("Missing bearer", None), "credentials"),
    "an error as an answer": (200, {"error": {"message": "no credit left", "code": 402}}, "no credit left"),
    "an error as words": (200, {"error": "quota"}, "quota"),
    "content of another kind": (200, {"choices": [{"message": {"content": {"a": 1}}}]}, "neither text nor a list"),
    "a part of another kind": (
        200,
        {"choices": [{"message": {"content": [{"type": "image_url", "image_url": {}}]}}]},
        "image_url",
    ),
}


@pytest.mark.parametrize("kind", STOPS)
def test_what_asking_again_does_not_mend_is_told(
    kind: str, benchmark: Benchmark, behave: Any, serve_openai: Serve
) -> None:
    status, body, words = STOPS[kind]
    behaviour = behave(lambda payload, i: "ok", reply=lambda payload: (status, body))
    with serve_openai(behaviour) as url, pytest.raises(UserError, match=words) as error:
        _ask(Benchmark("one", benchmark.problems[:1]), url)
    assert url in error.value.where and error.value.fix and len(behaviour.payloads) <= 2


@pytest.mark.parametrize(
    "body", [b"<html>login</html>", {"choices": []}, {"object": "list"}, [], {"choices": [{"text": "a"}]}]
)
def test_what_stays_unusable_is_told(body: Any, benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    behaviour = behave(lambda payload, i: "ok", reply=lambda payload: (200, body))
    with serve_openai(behaviour) as url, pytest.raises(UserError, match="no usable answer"):
        _ask(Benchmark("one", benchmark.problems[:1]), url)


def test_a_model_that_is_not_served_is_told_with_those_that_are(
    benchmark: Benchmark, behave: Any, serve_openai: Serve
) -> None:
    reply = STOPS["no such model"][:2]
    models = {"data": [{"id": "gemma"}, {"id": "qwen"}]}
    behaviour = behave(lambda payload, i: "", reply=lambda payload: reply, models=models)
    with serve_openai(behaviour) as url, pytest.raises(UserError) as error:
        _ask(Benchmark("one", benchmark.problems[:1]), url)
    assert "gemma, qwen" in error.value.fix


def test_an_error_that_passes_is_outlived(benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    first = [(200, {"error": {"message": "overloaded", "code": 503}})]
    behaviour = behave(lambda payload, i: "ok", reply=lambda payload: first.pop() if first else None)
    with serve_openai(behaviour) as url:
        rows, _ = _ask(Benchmark("one", benchmark.problems[:1]), url)
    assert [row["completion"] for row in rows] == ["ok", "ok"]


CONTENTS = {
    "text": ({"content": "ab"}, "ab", None),
    "parts": ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", None),
    "parts that are words": ({"content": ["a", {"text": "b"}]}, "ab", None),
    "Mistral's thoughts": (
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "ab"},
            ]
        },
        "ab",
        None,
    ),
    "thoughts alone": ({"content": [{"type": "thinking", "thinking": []}]}, "", "reasoning"),
    "reasoning beside null": ({"content": None, "reasoning_content": "hm"}, "", "reasoning"),
    "reasoning beside nothing": ({"content": "", "reasoning": "hm"}, "", "reasoning"),
    "reasoning beside an answer": ({"content": "ab", "reasoning_content": "hm"}, "ab", None),
    "a refusal": ({"content": None, "refusal": "I cannot"}, "", "refusal"),
    "a refusal as a part": ({"content": [{"type": "refusal", "refusal": "no"}]}, "", "refusal"),
    "tool calls": ({"content": None, "tool_calls": [{}]}, "", "tool calls"),
    "null": ({"content": None}, "", "null"),
    "no content": ({"role": "assistant"}, "", "null"),
    "an empty answer": ({"content": ""}, "", None),
    "half a surrogate pair": ({"content": "a\ud83d"}, "a\ud83d", None),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_every_shape_of_a_message(kind: str, benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    message, text, empty = CONTENTS[kind]
    with serve_openai(behave(lambda payload, i: "", reply=_message(message))) as url:
        rows, _ = _ask(Benchmark("one", benchmark.problems[:1]), url)
    assert [(row["completion"], row.get("empty")) for row in rows] == [(text, empty)] * 2


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["text", "thinking"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "text", "type", "error", "index", "usage", "refusal"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(ANY, st.booleans())
def test_any_reply_is_text_or_told(value: Any, as_content: bool) -> None:
    body = {"choices": [{"message": {"content": value}}]} if as_content else value
    try:
        found = choices_of(body)
    except (Retry, Unusable):
        return
    assert found and all(isinstance(choice.text, str) and isinstance(choice.empty, str | None) for choice in found)


def _run(folder: Path, url: str, out: Path, **options: Any) -> dict[str, Any]:
    config = EvalConfig.model_validate({"benchmark": str(folder), "samples": 2, "simulators": 1} | options)
    return run(config, EvalInputs(endpoint=url, model="m"), out)


@pytest.mark.parametrize("kind", ["thoughts alone", "reasoning beside null", "null", "a refusal"])
def test_a_score_of_no_answers_is_none(
    kind: str, benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve
) -> None:
    reply = _message(CONTENTS[kind][0], finish_reason="length")
    with serve_openai(behave(lambda payload, i: "", reply=reply)) as url, pytest.raises(UserError) as error:
        _run(benchmark_folder, url, tmp_path)
    assert "6 of 6 answers have no text" in error.value.what and "6 of them were cut off" in error.value.what
    assert not (tmp_path / "summary.json").exists()


def test_shapes_are_scored_and_empty_answers_counted(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve, solve: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def reply(payload: dict[str, Any]) -> tuple[int, Any]:
        task = next(t for t in ("Prob001_register", "Prob002_sum", "Prob003_parity") if t in str(payload["messages"]))
        code = f"```verilog\n// \ud83d\n{solve(task)}```"
        parts = [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": code[:30]},
            {"type": "text", "text": code[30:]},
        ]
        messages = [{"content": parts}, {"content": None, "reasoning_content": "hm"}]
        return 200, {"choices": [{"index": i, "message": m} for i, m in enumerate(messages)]}

    with serve_openai(behave(lambda payload, i: "", reply=reply)) as url:
        metrics = _run(benchmark_folder, url, tmp_path)
    assert metrics["pass@1"] == 0.5 and metrics["category_no_module"] == 3
    assert json.loads((tmp_path / "summary.json").read_text())["empty_answers"] == {"reasoning": 3}
    assert "3 of 6 answers have no text: 3 hold reasoning alone" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["max_model_len", "context_length"])
def test_prompts_that_are_too_long_are_found_before_the_first_request(
    name: str, benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve
) -> None:
    models = {"data": [{"id": "other", name: 8}, {"id": "m", name: 600}]}
    behaviour = behave(lambda payload, i: "", models=models, count=lambda m: 120 if "sum" in m[0]["content"] else 20)
    with serve_openai(behaviour) as url:
        with pytest.raises(UserError, match="1 prompts are too long: Prob002_sum has 120 tokens") as error:
            _run(benchmark_folder, url, tmp_path, max_tokens=512)
        assert "632 tokens" in error.value.fix and "to 480" in error.value.fix
        with pytest.raises(UserError, match=r"eval\.max_tokens is 700, and the server takes 600"):
            _run(benchmark_folder, url, tmp_path, max_tokens=700)
    assert not behaviour.payloads and behaviour.counted[0]["model"] == "m"


def test_a_server_that_counts_no_tokens_sees_the_longest_first(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve
) -> None:
    refusal = (400, _openai("the prompt has 700 tokens, more than this server takes", None))
    behaviour = behave(
        lambda payload, i: "", models={"data": [{"id": "m", "max_model_len": 600}]}, reply=lambda _: refusal
    )
    with serve_openai(behaviour) as url, pytest.raises(UserError, match="700 tokens"):
        _run(benchmark_folder, url, tmp_path, concurrency=1)
    assert "Prob001_register" in behaviour.payloads[0]["messages"][0]["content"]


def test_short_prompts_are_not_counted(
    benchmark_folder: Path, tmp_path: Path, behave: Any, serve_openai: Serve, solve: Callable[[str], str]
) -> None:
    models = {"data": [{"id": "m", "max_model_len": 32768}]}
    behaviour = behave(lambda payload, i: solve("Prob001_register"), models=models, count=lambda m: 10**6)
    with serve_openai(behaviour) as url:
        _run(benchmark_folder, url, tmp_path)
    assert not behaviour.counted and len(behaviour.payloads) == 3
