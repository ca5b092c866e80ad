"""`python -m serve.bench JOB.json`: every regime at every rate, one file of figures each; answers with their names."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from common.answer import answer
from common.errors import UserError
from common.files import write_json
from common.progress import bar, log
from common.stage import read_parts
from serve.bench.config import BenchConfig, BenchInputs
from serve.bench.drive import drive
from serve.bench.figures import figures
from serve.bench.load import Ask, requests
from serve.bench.stream import Timing, ask

PATHS = {"completions": "/completions", "chat": "/chat/completions"}


async def measure(config: BenchConfig, inputs: BenchInputs, out: Path) -> list[str]:
    """Names of the files of figures in `out`. Raises UserError where the server does not answer a first request."""
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    names = []
    try:
        httpx.URL(inputs.endpoint)
    except httpx.InvalidURL as error:
        raise UserError(f"no address: {error}", where=inputs.endpoint, fix="write http://HOST:PORT/v1") from None
    async with httpx.AsyncClient(
        base_url=inputs.endpoint, headers=headers, timeout=config.timeout, limits=limits, trust_env=False
    ) as client:

        async def send(one: Ask) -> Timing:
            return await ask(client, PATHS[config.api], one)

        for lengths in config.lengths:
            asks = await _warm(config, inputs, lengths, send)
            for rate in config.rates:
                with bar(_called(lengths, rate), len(asks), "requests") as progress:

                    async def counted(one: Ask) -> Timing:
                        timing = await send(one)
                        progress.advance()
                        return timing

                    timings, seconds = await drive(asks, rate, config.concurrency, config.seed, counted)
                found = about(config, inputs, lengths, rate) | figures(timings, seconds)
                names.append(f"{_called(lengths, rate)}.json")
                write_json(out / names[-1], found)
    return names


async def _warm(config: BenchConfig, inputs: BenchInputs, lengths: tuple[int, int], send: Any) -> list[Ask]:
    """The regime's requests, after one that is not counted: what the server compiles or loads for it is ready then."""
    for ends in (False, True):
        asks = requests(config, inputs.models, lengths, ends)
        first = await send(asks[0])
        if not first.error:
            return asks
        if "ignore_eos" not in first.error:
            break
        log("this server has no ignore_eos: completions end where the model ends them")
    raise UserError(f"the server gave no answer: {first.error}", where=inputs.endpoint, fix="check address and model")


def about(config: BenchConfig, inputs: BenchInputs, lengths: tuple[int, int], rate: float | None) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "backend": "openai" if config.api == "completions" else "openai-chat",
        "model_id": ",".join(inputs.models),
        "num_prompts": config.requests,
        "request_rate": "inf" if rate is None else rate,
        "burstiness": 1.0,
        "max_concurrency": config.concurrency,
        "random_input_len": lengths[0],
        "random_output_len": lengths[1],
        "n": config.samples,
        "spread": config.spread,
        "seed": config.seed,
    }


def _called(lengths: tuple[int, int], rate: float | None) -> str:
    return f"{lengths[0]}x{lengths[1]}-qps{'inf' if rate is None else format(rate, 'g')}"


def run(job: dict[str, Any]) -> list[str]:
    config, inputs, out = read_parts(job, BenchConfig, BenchInputs)
    out.mkdir(parents=True, exist_ok=True)
    return asyncio.run(measure(config, inputs, out))


if __name__ == "__main__":
    sys.exit(answer(run))
