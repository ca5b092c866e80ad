"""The server as its clients see it: the real openai client against a real process, checked against transformers."""

import asyncio
import json
import socket
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from transformers import AutoTokenizer

from tests.serve.conftest import MAX_LENGTH, MAX_WAITING, SLOTS, WINDOW, Server

PROMPT = "module counter input clock output reset always posedge begin end assign wire register"
MESSAGES: Any = [{"role": "user", "content": "the answer is a design of a counter"}]
WORDS = PROMPT.split()


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    with torch.no_grad():
        out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=count)
    return out[0, len(prompt) :].tolist()


def random_prompts(count: int, lengths: tuple[int, int]) -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [rng.integers(6, 380, rng.integers(*lengths)).tolist() for _ in range(count)]


def token_ids(server: Server, **body: Any) -> list[list[int]]:
    answer = server.post("completions", {"model": "tiny", "return_token_ids": True, **body})
    assert answer.status_code == 200, answer.text
    return [choice["token_ids"] for choice in answer.json()["choices"]]


def test_greedy_tokens_are_those_of_transformers(server: Server, reference: Any) -> None:
    prompts = [
        *random_prompts(4, (2 * WINDOW, 5 * WINDOW)),
        *random_prompts(2, (2, WINDOW)),
        *random_prompts(1, (130, 131)),
    ]
    ours = token_ids(server, prompt=prompts, temperature=0, max_tokens=40)
    assert ours == [greedy(reference, prompt, 40) for prompt in prompts]
    assert len({tuple(tokens) for tokens in ours}) == len(prompts)


def test_a_prompt_batched_equals_the_prompt_alone(server: Server) -> None:
    prompts = random_prompts(12, (3, 60))
    for sampling in ({"temperature": 0}, {"temperature": 0.9, "top_p": 0.9, "seed": 7}):
        together = token_ids(server, prompt=prompts, max_tokens=20, **sampling)
        assert together == [token_ids(server, prompt=p, max_tokens=20, **sampling)[0] for p in prompts]


def test_samples_share_one_prefill(server: Server) -> None:
    before = server.metric("tapeout_prefills_total")
    answer = server.client.chat.completions.create(
        model="tiny", messages=MESSAGES, n=11, seed=1, temperature=1.0, max_tokens=8
    )
    assert server.metric("tapeout_prefills_total") == before + 1
    assert [choice.index for choice in answer.choices] == list(range(11))
    assert len({choice.message.content for choice in answer.choices}) > 5
    assert answer.usage is not None and answer.usage.completion_tokens <= 88


def test_a_seed_gives_the_same_text_under_any_load(server: Server) -> None:
    async def ask(client: openai.AsyncOpenAI, seed: int, content: str) -> list[str | None]:
        answer = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": content}],
            n=2,
            seed=seed,
            temperature=0.9,
            top_p=0.95,
            max_tokens=24,
        )
        return [choice.message.content for choice in answer.choices]

    async def crowd(seeds: list[int], words: list[str]) -> list[list[str | None]]:
        async with server.async_client() as client:
            return await asyncio.gather(*(ask(client, *each) for each in zip(seeds, words, strict=True)))

    words = [WORDS[i % 7] * (i % 5 + 1) for i in range(10)]
    (alone,) = asyncio.run(crowd([5], words[9:]))
    assert asyncio.run(crowd([*range(10, 19), 5], words))[9] == alone
    assert asyncio.run(crowd([6], words[9:])) != [alone]


def test_sample_i_is_the_same_however_many_are_asked_for(server: Server) -> None:
    body = {"prompt": PROMPT, "seed": 2**40 + 1, "temperature": 1.0, "max_tokens": 10}
    assert token_ids(server, n=5, **body)[:2] == token_ids(server, n=2, **body)


def test_streaming_equals_not_streaming(server: Server) -> None:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "n": 3, "seed": 4, "max_tokens": 30, "logprobs": True}
    whole = server.client.chat.completions.create(**asked)
    texts, counts, finishes = ["", "", ""], [0, 0, 0], ["", "", ""]
    usage = None
    for event in server.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
            counts[choice.index] += len(choice.logprobs.content or []) if choice.logprobs else 0
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert finishes == [choice.finish_reason for choice in whole.choices]
    assert counts == [len(choice.logprobs.content or []) for choice in whole.choices if choice.logprobs]
    assert usage == whole.usage


def test_text_is_what_the_tokenizer_decodes(server: Server, model_folder: Any) -> None:
    answer = server.post(
        "completions", {"model": "tiny", "prompt": PROMPT, "max_tokens": 40, "seed": 9, "return_token_ids": True}
    ).json()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    (choice,) = answer["choices"]
    assert choice["text"] == tokenizer.decode(choice["token_ids"], skip_special_tokens=True)
    assert answer["prompt_token_ids"] == tokenizer(PROMPT).input_ids


def test_stop_strings_cut_the_text_and_end_the_sample(server: Server) -> None:
    asked: Any = {"model": "tiny", "prompt": PROMPT, "seed": 3, "max_tokens": 40, "temperature": 0.8}
    whole = server.client.completions.create(**asked).choices[0].text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    cut = server.client.completions.create(**asked, stop=[stop, "never this"])
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage is not None and cut.usage.completion_tokens < 40
    events = server.client.completions.create(**asked, stop=stop, stream=True)
    assert "".join(event.choices[0].text for event in events) == cut.choices[0].text
    server.await_metric("tapeout_samples_running", 0)


def test_end_tokens_end_a_sample_unless_ignored(server: Server) -> None:
    """At a high temperature over 400 tokens, eight samples of 60 draw an end token about twice."""
    asked: Any = {"model": "tiny", "prompt": PROMPT, "n": 8, "max_tokens": 60, "temperature": 2.0}
    for seed in range(40):
        choices = server.post("completions", {**asked, "seed": seed, "return_token_ids": True}).json()["choices"]
        ended = [choice for choice in choices if choice["finish_reason"] == "stop"]
        if ended:
            break
    assert ended, "no sample ended by itself"
    assert all(choice["token_ids"][-1] in (1, 5) and not {1, 5} & set(choice["token_ids"][:-1]) for choice in ended)
    assert "<turn|>" not in ended[0]["text"]
    on = token_ids(server, prompt=PROMPT, n=8, max_tokens=60, seed=seed, temperature=2.0, ignore_eos=True)
    assert [len(tokens) for tokens in on] == [60] * 8


def test_echoed_logprobs_are_those_of_transformers(server: Server, reference: Any) -> None:
    prompts = random_prompts(2, (2 * WINDOW, 4 * WINDOW))
    for count in (0, 5):
        answer = server.client.completions.create(
            model="tiny", prompt=prompts, max_tokens=count, echo=True, logprobs=1, temperature=0
        )
        for prompt, choice in zip(prompts, answer.choices, strict=True):
            ids = prompt + greedy(reference, prompt, count) if count else prompt
            with torch.no_grad():
                expected = torch.log_softmax(reference(torch.tensor([ids])).logits[0, :-1], -1)
            logprobs = choice.logprobs
            assert logprobs is not None and logprobs.token_logprobs is not None and logprobs.top_logprobs is not None
            assert logprobs.token_logprobs[0] is None and len(logprobs.token_logprobs) == len(ids)
            ours = np.array(logprobs.token_logprobs[1:], float)
            np.testing.assert_allclose(ours, expected[range(len(ids) - 1), ids[1:]].numpy(), atol=2e-4)
            best = np.array([max(top.values()) for top in logprobs.top_logprobs[1:]])
            np.testing.assert_allclose(best, expected.max(-1).values.numpy(), atol=2e-4)


BAD: list[tuple[str, dict[str, Any], str | None]] = [
    ("completions", {"prompt": "a", "best_of": 2}, "best_of"),
    ("completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("completions", {"prompt": "a", "logprobs": 5}, "logprobs"),
    ("completions", {"prompt": "a", "n": 0}, "n"),
    ("completions", {"prompt": "a", "temperature": -1}, "temperature"),
    ("completions", {"prompt": "a", "temperature": "hot"}, "temperature"),
    ("completions", {"prompt": "a", "top_p": 0}, "top_p"),
    ("completions", {"prompt": "a", "max_tokens": 0}, None),
    ("completions", {"prompt": "a", "stop": [""]}, "stop"),
    ("completions", {"prompt": "a", "presence_penalty": 0.5}, "presence_penalty"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": [10**6]}, "prompt"),
    ("completions", {"prompt": [7] * MAX_LENGTH}, "prompt"),
    ("completions", {"prompt": [7] * (MAX_LENGTH - 28), "max_tokens": 29}, "max_tokens"),
    ("completions", {}, "prompt"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools"),
    ("chat/completions", {"messages": MESSAGES, "response_format": {"type": "json_object"}}, "response_format"),
    ("chat/completions", {"messages": MESSAGES, "top_logprobs": 1}, None),
    ("chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "messages"),
]


@pytest.mark.parametrize(("path", "body", "param"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_not_supported_is_refused(server: Server, path: str, body: dict[str, Any], param: str | None) -> None:
    answer = server.post(path, {"model": "tiny", **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]


def test_other_refusals(server: Server) -> None:
    with pytest.raises(openai.NotFoundError):
        server.client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.BadRequestError, match=str(MAX_WAITING)):
        server.client.completions.create(model="tiny", prompt=[[7]] * (MAX_WAITING + 1))
    broken = httpx.post(f"{server.url}/completions", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
    assert httpx.get(f"{server.url}/nothing").json()["error"]["message"] == "Not Found"


def test_health_models_and_null_parameters(server: Server) -> None:
    assert httpx.get(f"http://127.0.0.1:{server.port}/health").json() == {"status": "ok"}
    (model,) = server.client.models.list().data
    assert model.id == "tiny"
    assert len(token_ids(server, prompt="a", max_tokens=1, seed=None, stop=None)[0]) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_slots(server: Server, stream: bool) -> None:
    """Its samples are cancelled long before their last token, and nothing runs on."""
    body = {"model": "tiny", "prompt": "a", "n": 128, "max_tokens": 170, "ignore_eos": True, "stream": stream}
    before = server.metric("tapeout_generation_tokens_total")
    if stream:
        with httpx.stream("POST", f"{server.url}/completions", json=body, timeout=60) as answer:
            assert next(answer.iter_lines()).startswith("data: {")
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/completions", json=body, timeout=0.3)
    assert_given_up(server, before)


def assert_given_up(server: Server, before: float) -> None:
    server.await_metric("tapeout_samples_running", 0)
    server.await_metric("tapeout_requests_waiting", 0)
    assert server.metric("tapeout_generation_tokens_total") - before < 128 * 170


def test_a_client_that_hangs_up_after_an_early_request_frees_its_slots(server: Server) -> None:
    body = {"model": "tiny", "prompt": "a", "n": 128, "max_tokens": 170, "ignore_eos": True}
    content, before = json.dumps(body).encode(), server.metric("tapeout_generation_tokens_total")
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as link:
        link.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        server.await_metric("tapeout_samples_running", SLOTS)
        link.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert_given_up(server, before)
