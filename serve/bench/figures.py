"""What a load gave, in the shape that `vllm bench serve --save-result` has: what reads one reads the other."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from serve.bench.stream import Timing

PERCENTILES = (50, 95, 99)


def figures(timings: Sequence[Timing], seconds: float) -> dict[str, Any]:
    """Of the requests that were answered whole; the others are counted, with what went wrong."""
    done = [timing for timing in timings if not timing.error]
    output = sum(timing.output for timing in done)
    tokens = output + sum(timing.input for timing in done)
    found: dict[str, Any] = {
        "duration": seconds,
        "completed": len(done),
        "failed": len(timings) - len(done),
        "total_input_tokens": tokens - output,
        "total_output_tokens": output,
        "request_throughput": len(done) / seconds,
        "output_throughput": output / seconds,
        "total_token_throughput": tokens / seconds,
        "max_concurrent_requests": most_open(done),
    }
    gaps = [gap for timing in done for gap in timing.gaps]
    several = [timing.tpot for timing in done if timing.output > timing.samples]
    found |= _spread("ttft", [timing.ttft for timing in done]) | _spread("tpot", several)
    found |= _spread("itl", gaps) | _spread("e2el", [timing.latency for timing in done])
    return found | {
        "input_lens": [timing.input for timing in timings],
        "output_lens": [timing.output for timing in timings],
        "ttfts": [timing.ttft if timing.first else 0.0 for timing in timings],
        "itls": [timing.gaps for timing in timings],
        "errors": [timing.error for timing in timings],
    }


def _spread(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds; nothing where there is none, rather than zero."""
    if not seconds:
        return {}
    ms = [1e3 * each for each in seconds]
    found = {f"mean_{name}_ms": statistics.fmean(ms), f"median_{name}_ms": statistics.median(ms)}
    found[f"std_{name}_ms"] = statistics.pstdev(ms)
    return found | {f"p{p}_{name}_ms": float(np.percentile(ms, p)) for p in PERCENTILES}


def most_open(timings: Sequence[Timing]) -> int:
    """The most requests that were open at a time."""
    changes = sorted([(t.start, 1) for t in timings] + [(t.end, -1) for t in timings])
    count = most = 0
    for _, change in changes:
        count += change
        most = max(most, count)
    return most
