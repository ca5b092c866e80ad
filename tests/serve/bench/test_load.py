"""A load is what was asked for, and its figures follow from the times that were seen."""

import asyncio
import math
import random
import statistics
import time
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.bench.config import BenchConfig
from serve.bench.drive import arrivals, drive
from serve.bench.figures import figures, most_open
from serve.bench.load import WIDEST, Ask, requests
from serve.bench.stream import Timing, ask


def config(**more: Any) -> BenchConfig:
    return BenchConfig.model_validate({"lengths": [[64, 32]], **more})


def test_prompts_have_their_lengths_and_share_no_prefix() -> None:
    asks = requests(config(requests=50), ("base", "adapter"), (64, 32), ends=False)
    assert {(len(each.body["prompt"]), each.body["max_tokens"]) for each in asks} == {(64, 32)}
    assert [each.body["model"] for each in asks] == ["base", "adapter"] * 25
    assert len({tuple(each.body["prompt"][:8]) for each in asks}) == 50
    assert asks == requests(config(requests=50), ("base", "adapter"), (64, 32), ends=False), "of one seed"
    assert asks != requests(config(requests=50, seed=1), ("base", "adapter"), (64, 32), ends=False)


def test_spread_lengths_keep_their_mean() -> None:
    asks = requests(config(requests=4000, spread=0.5), ("m",), (200, 100), ends=True)
    tokens = [each.tokens for each in asks]
    assert statistics.fmean(tokens) == pytest.approx(200, rel=0.03) and max(tokens) <= WIDEST * 200
    assert statistics.pstdev([math.log(count) for count in tokens]) == pytest.approx(0.5, abs=0.03)
    assert all("ignore_eos" not in each.body for each in asks)


@given(st.integers(1, 300), st.floats(0.1, 100), st.integers(0, 9))
def test_arrivals_of_a_rate(count: int, rate: float, seed: int) -> None:
    at = arrivals(count, rate, seed)
    assert len(at) == count and at == sorted(at) and at[0] == 0.0
    assert arrivals(count, None, seed) == [0.0] * count


def test_arrivals_are_poisson() -> None:
    gaps = np.diff(arrivals(5000, 20.0, 0))
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.05) and gaps.std() == pytest.approx(1 / 20, rel=0.05)


def test_a_closed_loop_holds_its_bound_and_waiting_is_no_latency() -> None:
    open_now, most = 0, 0

    async def send(one: Ask) -> Timing:
        nonlocal open_now, most
        timing = Timing(time.perf_counter())
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        timing.first = timing.end = time.perf_counter()
        return timing

    timings, _ = asyncio.run(drive([Ask({}, 1, 1)] * 20, None, 3, 0, send))
    assert most == 3 and len(timings) == 20 and most_open(timings) <= 3


def test_figures_are_those_of_the_times() -> None:
    draw = random.Random(0)
    timings = []
    for i in range(40):
        start, first = draw.random(), draw.random() + 1
        gaps = [draw.random() for _ in range(9)]
        timings.append(Timing(start, first, first + sum(gaps), gaps, input=16, output=10))
        timings.append(Timing(start, error=f"500: {i}"))
    found, good = figures(timings, 4.0), timings[::2]
    assert (found["completed"], found["failed"], found["total_output_tokens"]) == (40, 40, 400)
    assert found["output_throughput"] == 100 and found["total_token_throughput"] == (16 + 10) * 40 / 4
    assert found["p95_ttft_ms"] == pytest.approx(np.percentile([1e3 * (t.first - t.start) for t in good], 95))
    assert found["median_tpot_ms"] == pytest.approx(np.median([1e3 * sum(t.gaps) / 9 for t in good]))
    assert found["p99_itl_ms"] == pytest.approx(np.percentile([1e3 * gap for t in good for gap in t.gaps], 99))
    assert len(found["ttfts"]) == len(found["errors"]) == 80 and found["errors"][1] == "500: 0"


EVENT = 'data: {"choices": [{"index": %d, "text": "x", "finish_reason": null}]}\n\n'
USAGE = 'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n\n'
STREAMS = {
    "whole": (EVENT % 0 + EVENT % 1 + EVENT % 0 + EVENT % 1 + USAGE + "data: [DONE]\n\n", ""),
    "no usage": (EVENT % 0 + "data: [DONE]\n\n", "without the usage"),
    "nothing": ("data: [DONE]\n\n", "without a token"),
    "an error within": (EVENT % 0 + 'data: {"error": {"message": "gone"}}\n\n', "gone"),
    "no JSON": ("data: {\n\n", "JSONDecodeError"),
    "a list": ("data: []\n\n", "AttributeError"),
    "a number": ("data: 5\n\n", "TypeError"),
    "choices of text": ('data: {"choices": "x"}\n\n', "AttributeError"),
    "usage of words": (
        EVENT % 0 + 'data: {"usage": {"prompt_tokens": "few", "completion_tokens": 4}}\n\n',
        "ValueError",
    ),
    "another shape": ('data: {"choices": [{"text": "x"}]}\n\n', "KeyError"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_whole_or_an_error(name: str) -> None:
    content, error = STREAMS[name]

    async def read() -> Timing:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, text=content))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await ask(client, "/completions", Ask({"n": 2}, 3, 2))

    timing = asyncio.run(read())
    assert error in timing.error and bool(timing.error) == bool(error)
    if not error:
        assert (timing.input, timing.output, len(timing.gaps)) == (3, 4, 2)
        assert timing.start < timing.first <= timing.end
