"""dataset.json: what was read, kept and left out and why, how long conversations are, what they have of a benchmark."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data.clean import Tally, compares
from data.config import DataConfig
from models.text.packed_rows import buckets_of

BINS = 40


def length_figures(lengths: Counter[int], max_length: int) -> dict[str, Any]:
    """Quantiles of the conversations' tokens, the share that each `max_length` would keep whole, a histogram."""
    sizes = np.array(sorted(lengths), np.int64)
    counts = np.array([lengths[int(size)] for size in sizes])
    upto = np.cumsum(counts)
    share = {q: int(sizes[np.searchsorted(upto, q / 100 * upto[-1])]) for q in (50, 95, 99, 99.5)}
    rooms = sorted({*(2**n for n in range(7, 16)), max_length})
    kept = {str(room): round(float(upto[sizes <= room].max(initial=0) / upto[-1]), 5) for room in rooms}
    quantiles = {f"p{q}": size for q, size in share.items()}
    return {**quantiles, "max": int(sizes[-1]), "kept_at": kept, "histogram": _histogram(sizes, counts, share[99.5])}


def _histogram(sizes: np.ndarray, counts: np.ndarray, upto: int) -> dict[str, Any]:
    """Conversations in bins of equal width up to the 99.5th percentile; the last bin holds all beyond it too."""
    width = max(1, -(-upto // BINS))
    bins = np.minimum((sizes - 1) // width, BINS - 1)
    return {"width": width, "counts": np.bincount(bins, weights=counts, minlength=BINS).astype(int).tolist()}


def report(config: DataConfig, tally: Tally, train_rows: int, validation_rows: int) -> tuple[dict[str, Any], Any]:
    """The stage's figures, and what dataset.json holds besides them."""
    figures: dict[str, Any] = {
        "rows": tally.rows,
        "kept": tally.kept,
        "tokens": tally.tokens,
        "supervised": tally.supervised,
        "packed_rows": train_rows,
        "validation_rows": validation_rows,
        "efficiency": round((tally.tokens - tally.validation_tokens) / (train_rows * config.max_length), 4),
        "max_length": config.max_length,
    }
    more = {
        "supervised_share": round(tally.supervised / tally.tokens, 4),
        "lengths": length_figures(tally.lengths, config.max_length),
        "dropped": dict(sorted(tally.dropped.items())),
        "unused": dict(sorted(tally.unused.items())),
        "duplicates": tally.duplicates,
        "probes": tally.probes,
    }
    if config.packing == "none":
        more["buckets"] = buckets_of(config.max_length)
    if tally.split:
        more["each_answer"] = {"rows": tally.split, "parts": tally.parts}
    if tally.endless:
        more["without_stop_token"] = tally.endless
    if config.overflow == "window":
        more["windowed"] = {"rows": tally.cut, "windows": tally.windows, "left_out": tally.left}
    if compares(config):
        more["contamination"] = tally.contamination.report(config.contamination_limit)
        figures["contaminated"] = tally.contamination.rows
    return figures, more


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def closing(config: DataConfig, tally: Tally, day: str | None) -> Iterator[str]:
    """What the stage ends with: all that was left out, left aside or changed, each with its count."""
    said = [f"{tally.rows:,} rows read, {tally.kept:,} conversations or documents kept"]
    if tally.dropped:
        said.append(f"left out: {_listed(tally.dropped)}")
    if tally.duplicates and config.duplicates == "keep":
        said.append(f"{tally.duplicates:,} exact duplicates kept (data.duplicates: drop leaves them out)")
    if tally.cut:
        left = f" ({tally.left:,} parts fit none and are left out)" if tally.left else ""
        said.append(f"{tally.cut:,} too long, cut into {tally.windows:,} windows{left}")
    if tally.split:
        said.append(
            f"{tally.split:,} became {tally.parts:,} rows, one an answer: the chat template rewrites earlier turns"
        )
    if tally.unused:
        said.append("unused: " + ", ".join(f"{name} ({count:,})" for name, count in sorted(tally.unused.items())))
    yield "; ".join(said)
    if tally.endless:
        yield (
            f"warning: {tally.endless:,} conversations end without a token that ends a turn: the model will not learn "
            "to stop; end each answer in the chat template with one, {{ eos_token }} for instance"
        )
    if day is not None:
        yield f"the chat template prints the date: it is told {day} (data.date), and so it must be in serving"
    if tally.contamination.rows:
        yield (
            f"{tally.contamination.rows} rows resemble {len(tally.contamination.problems)} problems of the benchmark "
            f"(similarity {config.contamination_limit} or more); the worst are in dataset.json"
        )
