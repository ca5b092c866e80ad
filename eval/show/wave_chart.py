"""Waves around one moment as a standalone SVG: a lane a signal, the design's below the reference's, differences marked.

A bit is a line, a word a hexagon with its value; X is filled, Z lies in the middle. The time axis is to scale.
"""

from collections.abc import Iterable, Iterator
from html import escape
from itertools import pairwise

from eval.show.waves import Waves, differing, shown, window

WIDTH, LANE, NAMES, TOP, RIGHT, SLANT = 960, 30, 170, 34, 20, 3
LEVEL = 8
"""Half the height of a wave, in pixels."""
_LETTER = 7.3
_STYLE = (
    "svg{background:#fff;font:12px ui-monospace,monospace}text{fill:#222}.name{text-anchor:end}"
    ".value,.tick{text-anchor:middle}.tick{fill:#777}.wave{fill:none;stroke:#1a6e3c;stroke-width:1.5}"
    ".unknown{fill:#d9a03b;fill-opacity:.45;stroke:#a8741a}.high-z{stroke:#a8741a}.differs{fill:#d33;fill-opacity:.18}"
    ".rule{stroke:#ddd}.moment{stroke:#d33;stroke-dasharray:3 3}"
    "@media(prefers-color-scheme:dark){svg{background:#161616}text{fill:#ddd}.wave{stroke:#6fcf97}.rule{stroke:#333}}"
)
Span = tuple[float, float, str]
"""From and to (pixels), and the value between."""


def chart(waves: Waves, wanted: list[str], at: int, title: str) -> str:
    """SVG of the signals `wanted` around the time `at`; empty where the dump has none of them."""
    names = [name for name in wanted if name in waves.names]
    rows = window(waves, at, before=12, after=8)
    if not names or not rows:
        return ""
    height = TOP + LANE * len(names) + 24
    edges = _edges([time for time, _ in rows])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text x="12" y="20">{escape(title)}</text>',
        *_axis([time for time, _ in rows], edges, at, height),
    ]
    wrong = [differing(waves.names, values) for _, values in rows]
    for lane, name in enumerate(names):
        middle, column = TOP + LANE * lane + LANE // 2, waves.names.index(name)
        parts.append(f'<text class="name" x="{NAMES - 10}" y="{middle + 4}">{escape(name)}</text>')
        for i, signals in enumerate(wrong):
            if name in signals:
                parts.append(_box("differs", edges[i], edges[i + 1], middle, LANE // 2 - 1))
        spans = _spans([values[column] for _, values in rows], edges)
        parts += _word(spans, middle) if name in waves.wide else _bit(spans, middle)
    return "".join(parts) + "</svg>\n"


def _edges(times: list[int]) -> list[float]:
    """Where each row begins, in pixels, and where the last one ends: after as long as the longest before it."""
    end = times[-1] + max((b - a for a, b in pairwise(times)), default=1)
    scale = (WIDTH - NAMES - RIGHT) / max(end - times[0], 1)
    return [round(NAMES + (time - times[0]) * scale, 1) for time in [*times, end]]


def _axis(times: list[int], edges: list[float], at: int, height: int) -> Iterator[str]:
    bottom, last = height - 20, -1000.0
    for time, x in zip(times, edges, strict=False):
        if x - last >= _LETTER * (len(str(time)) + 2):
            last = x
            yield f'<line class="rule" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>'
            yield f'<text class="tick" x="{x}" y="{height - 6}">{time}</text>'
    if at in times:
        x = edges[times.index(at)]
        yield f'<line class="moment" x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{bottom}"/>'


def _spans(values: list[str], edges: list[float]) -> Iterator[Span]:
    """Stretches of one value."""
    begin = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[begin]:
            yield edges[begin], edges[i], values[begin]
            begin = i


def _box(style: str, start: float, end: float, middle: int, half: int) -> str:
    return (
        f'<rect class="{style}" x="{start}" y="{middle - half}" width="{round(end - start, 1)}" height="{2 * half}"/>'
    )


def _bit(spans: Iterable[Span], middle: int) -> Iterator[str]:
    path, before = [], ""
    for start, end, value in spans:
        if value in ("0", "1"):
            y = middle - LEVEL if value == "1" else middle + LEVEL
            path.append(f"{'L' if before in ('0', '1') else 'M'}{start} {y}H{end}")
        elif value == "z":
            yield f'<line class="high-z" x1="{start}" x2="{end}" y1="{middle}" y2="{middle}"/>'
        else:
            yield _box("unknown", start, end, middle, LEVEL)
        before = value
    if path:
        yield f'<path class="wave" d="{"".join(path)}"/>'


def _word(spans: Iterable[Span], middle: int) -> Iterator[str]:
    for start, end, value in spans:
        text = shown(value)
        style = "wave" if set(value) <= {"0", "1"} else "unknown"
        slant = min(SLANT, (end - start) / 2)
        inner, outer = f"{start + slant:.1f}", f"{end - slant:.1f}"
        up, down = middle - LEVEL, middle + LEVEL
        points = f"{start},{middle} {inner},{up} {outer},{up} {end},{middle} {outer},{down} {inner},{down}"
        yield f'<polygon class="{style}" points="{points}"><title>{escape(text)}</title></polygon>'
        if len(text) * _LETTER < end - start - 2 * SLANT:
            yield f'<text class="value" x="{(start + end) / 2:.1f}" y="{middle + 4}">{escape(text)}</text>'
