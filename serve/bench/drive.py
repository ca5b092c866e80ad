"""Requests sent as a load: at a rate whatever becomes of them (open loop), or so many at a time (closed loop)."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext

from serve.bench.load import Ask
from serve.bench.stream import Timing

Send = Callable[[Ask], Awaitable[Timing]]


def arrivals(count: int, rate: float | None, seed: int) -> list[float]:
    """Seconds from the first request to each: a Poisson process of `rate` a second, or all at once."""
    draw, at, found = random.Random(seed), 0.0, []
    for _ in range(count):
        found.append(at)
        at += 0.0 if rate is None else draw.expovariate(rate)
    return found


async def drive(
    asks: Sequence[Ask], rate: float | None, concurrency: int | None, seed: int, send: Send
) -> tuple[list[Timing], float]:
    """Each request's timing, and the seconds from the first request to the last answer's end. A request that waits for
    its turn among `concurrency` has not begun."""
    turn = nullcontext() if concurrency is None else asyncio.Semaphore(concurrency)
    began = time.perf_counter()

    async def one(ask: Ask, at: float) -> Timing:
        await asyncio.sleep(began + at - time.perf_counter())
        async with turn:
            return await send(ask)

    timings = await asyncio.gather(*map(one, asks, arrivals(len(asks), rate, seed)))
    return timings, time.perf_counter() - began
