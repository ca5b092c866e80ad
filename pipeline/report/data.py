"""The report's section on the data: what was kept, what was left out and why, how long conversations are, and which
of them resemble a problem of the benchmark. Read from the dataset.json of the data stage."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from common.benchmark.folder import benchmark_folder
from common.benchmark.layouts import read_benchmark
from common.benchmark.problems import Benchmark
from common.errors import UserError
from common.files import read_json
from pipeline.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks

DATASET = "dataset.json"
_SHOWN_PAIRS = 10


def problems(benchmark: str, dataset: str | None = None, revision: str | None = None) -> Benchmark | None:
    """The benchmark that a report is about; None where it is no longer there: the figures of a run stay without."""
    try:
        return read_benchmark(benchmark_folder(benchmark, dataset, revision), needs=("prompt",))
    except UserError:
        return None


def data_section(folder: Path, benchmark: str | None) -> dict[str, Any] | None:
    """What the template needs; None where an older version left no such figures. Rows that were compared with other
    problems than those of `benchmark` tell nothing of these: their figures are left out, and that is said. Raises
    UserError for a damaged file.
    """
    if not (folder / DATASET).is_file():
        return None
    try:
        return _section(read_json(folder / DATASET), benchmark)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what, fix = f"the file is damaged: {error}", "delete the folder, and run the same command again"
        raise UserError(what, where=str(folder / DATASET), fix=fix) from error


def _section(found: dict[str, Any], benchmark: str | None) -> dict[str, Any] | None:
    if "histogram" not in found.get("lengths", {}):
        return None
    contamination, other = found.get("contamination"), ""
    if contamination:
        with_what = contamination.get("benchmark", {})
        now = problems(benchmark) if benchmark else None
        if now is None or with_what.get("digest") != now.digest:
            contamination, other = None, with_what.get("name") or "an earlier one"
    return {
        "rows": found["rows"],
        "kept": found["kept"],
        "dropped": found["dropped"],
        "windowed": found.get("windowed"),
        "shares": {"supervised": found["supervised_share"], "packing efficiency": found["efficiency"]},
        "lengths": {name: value for name, value in found["lengths"].items() if isinstance(value, int)},
        "kept_at": dict(sorted(found["lengths"]["kept_at"].items(), key=lambda each: int(each[0]))),
        "histogram": Markup(bars(found["lengths"]["histogram"], found["max_length"])),
        "compared_with_other": other,
        "contamination": contamination and contamination | {"worst": contamination["worst"][:_SHOWN_PAIRS]},
    }


def bars(histogram: dict[str, Any], max_length: int) -> str:
    """Counts in bins of equal width as inline SVG, with a line at `max_length`."""
    counts, width = histogram["counts"], histogram["width"]
    high = ticks(0, max(counts) or 1)[-1]
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    per_token, per_count = (right - LEFT) / (width * len(counts)), (floor - TOP) / high
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="conversations by tokens">']
    for value in ticks(0, high):
        y = round(floor - value * per_count, 1)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke-width="1"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for i, count in enumerate(counts):
        x, y = round(LEFT + i * width * per_token, 1), round(floor - count * per_count, 1)
        beyond = " and more" if i == len(counts) - 1 else ""
        title = f"<title>{i * width + 1} to {(i + 1) * width} tokens{beyond}: {count}</title>"
        size = f'width="{width * per_token - 1:.1f}" height="{floor - y:.1f}"'
        parts.append(f'<rect class="bar" x="{x}" y="{y}" {size}>{title}</rect>')
    for value in ticks(0, width * len(counts)):
        x = round(LEFT + value * per_token, 1)
        if x <= right:
            parts.append(f'<text class="tick" x="{x}" y="{HEIGHT - 14}" text-anchor="middle">{value:g}</text>')
    if max_length <= width * len(counts):
        x = round(LEFT + max_length * per_token, 1)
        parts.append(f'<line class="limit" x1="{x}" x2="{x}" y1="{TOP}" y2="{floor}" stroke-dasharray="4 3"/>')
        parts.append(f'<text class="tick" x="{x - 4}" y="{TOP + 10}" text-anchor="end">max_length {max_length}</text>')
    return "".join([*parts, "</svg>"])
