"""The client against a server that misbehaves."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Benchmark
from common.errors import UserError
from eval.config import EvalConfig
from eval.endpoint import client as client_module
from eval.endpoint.client import Client, seed_of
from eval.journal import Sample

Serve = Callable[[Any], AbstractContextManager[str]]


@pytest.fixture
def benchmark(benchmark_folder: Path) -> Benchmark:
    return load_benchmark(str(benchmark_folder))


def _echo(payload: dict[str, Any], index: int) -> str:
    return f"{payload['seed']}/{index}"


def _ask(benchmark: Benchmark, url: str, have: set[int] | None = None, **options: Any) -> list[Sample]:
    async def ask() -> list[Sample]:
        config = EvalConfig.model_validate({"benchmark": "b", "samples": 3} | options)
        async with Client(url, "m", config, first_pause_s=0.01) as client:
            found = await asyncio.gather(*(client.samples(problem, have or set()) for problem in benchmark.problems))
        return [row for rows in found for row in rows]

    return asyncio.run(ask())


def test_one_request_a_problem_with_the_prompt_exactly(benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    behaviour = behave(_echo)
    with serve_openai(behaviour) as url:
        rows = _ask(benchmark, url, temperature=0.3, top_p=0.9, max_tokens=17)
    assert len(behaviour.payloads) == 3 and len(rows) == 9
    first = next(p for p in behaviour.payloads if "Prob001" in p["messages"][0]["content"])
    assert first == {
        "model": "m",
        "messages": [{"role": "user", "content": benchmark.problems[0].prompt}],
        "n": 3,
        "seed": seed_of(0, "Prob001_register"),
        "temperature": 0.3,
        "top_p": 0.9,
        "max_tokens": 17,
    }
    assert [row["completion"] for row in rows[:3]] == [f"{first['seed']}/{i}" for i in range(3)]
    assert {row["seed"] for row in rows[:3]} == {first["seed"]} and rows[0]["finish_reason"] == "stop"


@pytest.mark.parametrize("how", [{"honours_n": False}, {"refuses_n": True}])
def test_where_n_is_not_honoured_the_rest_is_asked_for(
    how: dict[str, bool], benchmark: Benchmark, behave: Any, serve_openai: Serve
) -> None:
    with serve_openai(behave(_echo, **how)) as url:
        rows = _ask(benchmark, url)
    assert [row["sample"] for row in rows] == [0, 1, 2] * 3
    task = benchmark.problems[0].task_id
    assert [row["completion"] for row in rows[:3]] == [
        f"{seed}/0" for seed in (seed_of(0, task), seed_of(0, task, 1), seed_of(0, task, 2))
    ]
    assert len({row["seed"] for row in rows}) == 9


def test_what_is_there_is_not_kept_twice(benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    with serve_openai(behave(_echo)) as url:
        whole = _ask(benchmark, url)
        rest = _ask(benchmark, url, have={0, 2})
    assert rest == [row for row in whole if row["sample"] == 1]


@pytest.mark.parametrize("fault", [429, 500, 502, 503, "truncate", "drop", "empty", "html"])
def test_passing_faults_are_outlived(fault: int | str, benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    behaviour = behave(_echo, faults=[fault, fault])
    with serve_openai(behaviour) as url:
        rows = _ask(benchmark, url)
    assert len(rows) == 9 and len(behaviour.payloads) == 5


def test_requests_in_flight_are_bounded(benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    behaviour = behave(_echo, honours_n=False)
    with serve_openai(behaviour) as url:
        _ask(benchmark, url, samples=8, concurrency=2)
    assert 1 <= behaviour.most_at_once <= 2


def test_several_servers_share_the_work(benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    one, two = behave(_echo), behave(_echo, faults=["drop"])
    with serve_openai(one) as first, serve_openai(two) as second:
        rows = _ask(benchmark, f"{first}, {second}")
    assert len(rows) == 9 and one.payloads and two.payloads


@pytest.mark.parametrize(
    ("faults", "message"), [([400] * 2, "refused the request"), ([404] * 2, "refused"), ([401], "credentials")]
)
def test_refusals_are_told_at_once(
    faults: list[int], message: str, benchmark: Benchmark, behave: Any, serve_openai: Serve
) -> None:
    with serve_openai(behave(_echo, faults=faults * 3)) as url, pytest.raises(UserError, match=message):
        _ask(Benchmark("one", benchmark.problems[:1]), url)


def test_a_server_that_stays_dead_is_named(benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    behaviour = behave(_echo, faults=[503] * client_module.TRIES)
    with serve_openai(behaviour) as url, pytest.raises(UserError, match="HTTP 503") as error:
        _ask(Benchmark("one", benchmark.problems[:1]), url)
    assert error.value.where == url and "kept" in error.value.fix


def test_a_server_that_is_half_dead_is_named(benchmark: Benchmark, behave: Any, serve_openai: Serve) -> None:
    faults = ["truncate", "empty", "html", 503, 503, "empty"]
    assert len(faults) == client_module.TRIES
    with serve_openai(behave(_echo, faults=faults)) as url, pytest.raises(UserError, match="no choices") as error:
        _ask(Benchmark("one", benchmark.problems[:1]), url)
    assert error.value.where == url


def test_an_address_that_is_none() -> None:
    with pytest.raises(UserError, match="not a server's address"):
        _ask(Benchmark("none", ()), "localhost:8000")


def test_seeds_differ_and_stay() -> None:
    seeds = [seed_of(s, t, i) for s in (0, 1) for t in ("a", "b") for i in (None, 0, 1)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(0, "Prob001_zero") == 1902159765


def test_nobody_listens(benchmark: Benchmark) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(UserError, match="ConnectError"):
            _ask(Benchmark("one", benchmark.problems[:1]), url)
