"""A line chart as inline SVG: no plotting library to load, colours from the page's own style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 260, 56, 16, 12, 34
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """`style` is the CSS class that colours it; points are (x, y)."""

    name: str
    style: str
    points: Sequence[Point]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover low..high in roughly `about` equal steps."""
    if high <= low:
        high = low + 1.0
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step = next(step * m for m in (1, 2, 5, 10, 20) if (high - low) / (step * m) <= about)
    first = math.floor(low / step)
    return [i * step for i in range(first, math.ceil(high / step) + 1)]


def line_chart(lines: Sequence[Line], x_name: str, y_name: str) -> str:
    """SVG of `lines` on common axes; empty where there is no finite point."""
    points = [p for line in lines for p in line.points if math.isfinite(p[1])]
    if not points:
        return ""
    xs, ys = ticks(min(p[0] for p in points), max(p[0] for p in points), 8), ticks(0.0, max(p[1] for p in points))
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    span = max(x_high - x_low, 1e-9)

    def at(point: Point) -> tuple[float, float]:
        x = LEFT + (point[0] - x_low) / span * (WIDTH - LEFT - RIGHT)
        return round(x, 1), round(HEIGHT - BOTTOM - point[1] / ys[-1] * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{y_name} by {x_name}">']
    for y in ys:
        _, v = at((x_low, y))
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{v}" y2="{v}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{v + 4}" text-anchor="end">{y:g}</text>')
    for x in xs:
        if x_low <= x <= x_high:
            h, _ = at((x, 0.0))
            parts.append(f'<text class="tick" x="{h}" y="{HEIGHT - 14}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 1}" text-anchor="end">{x_name}</text>')
    for line in lines:
        finite = [at(p) for p in line.points if math.isfinite(p[1])]
        path = " ".join(f"{x},{y}" for x, y in finite)
        parts.append(f'<polyline class="{line.style}" points="{path}"/>')
        if len(finite) <= 40:
            parts += [f'<circle class="{line.style}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in finite]
    parts.append("</svg>")
    return "".join(parts)
