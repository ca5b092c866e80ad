"""The requests of a regime: prompts of given lengths that share no prefix, drawn anew from one seed."""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serve.bench.config import BenchConfig

IDS = range(128, 384)
"""Token ids of prompts: of text in every vocabulary that is likely to be served."""
WIDEST = 4
"""No drawn length is more than so many times that of the regime."""


@dataclass(frozen=True)
class Ask:
    """One request: `tokens` of prompt (words, over chat), `output` tokens a sample."""

    body: dict[str, Any]
    tokens: int
    output: int


def requests(config: BenchConfig, models: tuple[str, ...], lengths: tuple[int, int], ends: bool) -> list[Ask]:
    """`ends`: whether the server lets a completion end before its `output` tokens."""
    draw = random.Random(f"{config.seed} {lengths}")
    sizes = zip(*(_lengths(draw, mean, config) for mean in lengths), strict=True)
    turns = itertools.cycle(models)
    return [Ask(_body(config, next(turns), draw, i, o, ends), i, o) for i, o in sizes]


def _lengths(draw: random.Random, mean: int, config: BenchConfig) -> Iterator[int]:
    """Log-normal with this mean: its logarithms lie around log(mean) - sigma^2 / 2."""
    for _ in range(config.requests):
        scale = math.exp(draw.gauss(-(config.spread**2) / 2, config.spread))
        yield max(1, min(round(mean * scale), WIDEST * mean))


def _body(config: BenchConfig, model: str, draw: random.Random, tokens: int, output: int, ends: bool) -> dict[str, Any]:
    ids = draw.choices(IDS, k=tokens)
    if config.api == "chat":
        prompt: dict[str, Any] = {"messages": [{"role": "user", "content": " ".join(f"{each:x}" for each in ids)}]}
    else:
        prompt = {"prompt": ids}
    about = {"model": model, "max_tokens": output, "temperature": config.temperature, "stream": True}
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} | ({} if ends else {"ignore_eos": True})
    return prompt | about | more | ({"n": config.samples} if config.samples > 1 else {})
