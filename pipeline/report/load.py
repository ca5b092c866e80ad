"""What a server did under load: a table in Markdown, and a page with curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline.report.chart import Line, line_chart
from pipeline.report.page import template

GAIN = 0.05
"""A server is saturated at the rate from which on no higher one gives so much more."""


@dataclass(frozen=True)
class Point:
    """One regime at one rate, as `serve.bench` left it; milliseconds, and tokens a second."""

    regime: str
    """Tokens in x out."""
    rate: float
    completed: int
    failed: int
    output: float
    ttft: tuple[float, ...]
    tpot: tuple[float, ...]
    itl: tuple[float, ...]
    dollars: float | None
    """Of a million output tokens."""

    @classmethod
    def of(cls, found: dict[str, Any], price: float | None) -> "Point":
        def spread(name: str) -> tuple[float, ...]:
            return tuple(found.get(f"p{p}_{name}_ms", math.nan) for p in (50, 95, 99))

        output = found["output_throughput"]
        return cls(
            f"{found['random_input_len']} x {found['random_output_len']}",
            math.inf if found["request_rate"] == "inf" else found["request_rate"],
            found["completed"],
            found["failed"],
            output,
            spread("ttft"),
            spread("tpot"),
            spread("itl"),
            None if price is None or not output else 1e6 * price / (3600 * output),
        )


def table(points: Sequence[Point]) -> str:
    """Every point, then what each regime comes to."""
    priced = any(point.dollars is not None for point in points)
    head = ["in x out", "QPS", "done", "failed", "output tok/s"]
    head += [f"{name} ms p50/95/99" for name in ("TTFT", "TPOT", "ITL")]
    rows = [head + ["$/M output"] * priced]
    for p in points:
        figures = [p.regime, f"{p.rate:g}", str(p.completed), str(p.failed), f"{p.output:,.1f}"]
        figures += ["/".join(_ms(value) for value in spread) for spread in (p.ttft, p.tpot, p.itl)]
        rows.append(figures + ["–" if p.dollars is None else f"{p.dollars:.2f}"] * priced)
    most = [["in x out", "peak output tok/s", "TTFT p50 at the lowest QPS", "saturates at QPS"]]
    for regime, those in regimes(points).items():
        lowest, full = min(those, key=lambda p: p.rate), saturation(those)
        ttft = f"{_ms(lowest.ttft[0])} ms (QPS {lowest.rate:g})"
        reached = "not reached" if full is None else f"{full:g}"
        most.append([regime, f"{max(p.output for p in those):,.1f}", ttft, reached])
    return f"{_markdown(rows)}\n\n{_markdown(most)}"


def regimes(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points of the same lengths, as they came."""
    return {each: [p for p in points if p.regime == each] for each in dict.fromkeys(p.regime for p in points)}


def saturation(points: Sequence[Point]) -> float | None:
    """The lowest rate from which on no higher one gives `GAIN` more output; None where the highest still does."""
    ordered = sorted(points, key=lambda p: p.rate)
    best = max(p.output for p in ordered)
    first = next(p for p in ordered if p.output * (1 + GAIN) >= best)
    return None if first is ordered[-1] else first.rate


def page(endpoint: str, points: Sequence[Point]) -> str:
    """HTML: output and time to first token by rate, a curve a regime; bursts stand in the table alone."""
    curves = []
    for regime, those in regimes(points).items():
        finite = sorted((p for p in those if p.rate < math.inf), key=lambda p: p.rate)
        drawn = [
            ("output tok/s", [Line("output", "training", [(p.rate, p.output) for p in finite])]),
            ("TTFT ms", [Line("p50", "training", [(p.rate, p.ttft[0]) for p in finite]),
                         Line("p99", "validation", [(p.rate, p.ttft[2]) for p in finite])]),
        ]  # fmt: skip
        charts = [(name, Markup(line_chart(lines, "QPS", name))) for name, lines in drawn if len(finite) > 1]
        curves.append((f"{regime} tokens", charts))
    return template("load.html.jinja").render(endpoint=endpoint, table=table(points), curves=curves)


def _ms(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
