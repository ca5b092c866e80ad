"""From raw rows to the examples worth encoding: each step leaves rows out, and counts them under its reason."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from common.progress import Bar
from data.config import DataConfig, Source
from data.formats.example import Dropped, Example
from data.formats.reading import Reading
from data.formats.rows import example_of, renamed
from data.screen.compile_check import compiling
from data.screen.contamination import Contamination, judged
from data.screen.near import without_near_duplicates
from data.sources.files import all_rows
from data.sources.json_rows import BadRow, column


@dataclass
class Tally:
    """What was seen and kept, and the first prompts, kept as probes for the server.

    `kept` counts conversations in the shards; one that was cut into windows counts as each of them, and once in `cut`;
    `left` counts its parts that fit no window. `split` counts those of which each answer became a row of its own,
    `parts` these rows; `endless` those that end without a token that stops a completion.
    """

    rows: int = 0
    kept: int = 0
    cut: int = 0
    windows: int = 0
    left: int = 0
    split: int = 0
    parts: int = 0
    endless: int = 0
    duplicates: int = 0
    tokens: int = 0
    supervised: int = 0
    validation_kept: int = 0
    validation_tokens: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    probes: list[dict[str, Any]] = field(default_factory=list)
    contamination: Contamination = field(default_factory=Contamination)


def reading_of(config: DataConfig, source: Source, tally: Tally) -> Reading:
    """What the recipe wants of a source's rows; all sources count together."""
    ignore = {"error": frozenset[str](), "ignore": None}.get(str(config.unused), frozenset(config.unused))
    known = frozenset(filter(None, (*source.columns.values(), config.validation_group)))
    return Reading(config.strip_reasoning, ignore, known, tally.unused)


def _example(
    config: DataConfig, source: Source, where: str, row: dict[str, Any] | BadRow, reading: Reading
) -> tuple[Example, int]:
    """The example and a number that equal ones share."""
    if isinstance(row, BadRow):
        raise row
    try:
        row = renamed(row, source.columns, where)
        example = example_of(row, where, source.format, reading, config.answer == "code")
        digest = int.from_bytes(example.digest[:8], "little")
    except RecursionError:
        raise BadRow("the row is nested too deeply", where=where, fix="mend the row") from None
    return (example if config.validation_group is None else _grouped(example, row, config.validation_group)), digest


def _grouped(example: Example, row: dict[str, Any], name: str) -> Example:
    value = column(row, name, object, example.where)
    try:
        return replace(example, group=json.dumps(value, sort_keys=True))
    except (TypeError, ValueError, RecursionError):
        what = f"the group {name!r} is a {type(value).__name__}, which JSON cannot hold"
        raise BadRow(what, where=example.where, fix="name a column of text or numbers") from None


def _readable(config: DataConfig, tally: Tally, progress: Bar | None) -> Iterator[Example]:
    """Rows of all sources as examples; exact duplicates are counted, and left out where the recipe drops them."""
    seen: set[int] = set()
    readings = {id(source): reading_of(config, source, tally) for source in config.sources}
    for source, where, row in all_rows(config):
        tally.rows += 1
        if progress is not None:
            progress.advance()
        try:
            example, digest = _example(config, source, where, row, readings[id(source)])
        except Dropped as reason:
            tally.dropped[str(reason)] += 1
            continue
        except BadRow:
            if config.bad_rows == "error":
                raise
            tally.dropped["bad row"] += 1
            continue
        if digest in seen:
            tally.duplicates += 1
            if config.duplicates == "drop":
                tally.dropped["duplicate"] += 1
                continue
        seen.add(digest)
        yield example


def compares(config: DataConfig) -> bool:
    """Whether rows are compared with a benchmark."""
    return config.contamination != "off" and config.benchmark is not None


def examples(config: DataConfig, tally: Tally, progress: Bar | None = None) -> Iterator[Example]:
    """Cleaned rows of all sources."""
    found = _readable(config, tally, progress)
    if config.near_duplicates is not None:
        found = without_near_duplicates(found, config.near_duplicates, tally.dropped)
    if compares(config):
        found = judged(config, found, tally.contamination, tally.dropped)
    if config.compile_check != "off":
        found = compiling(config, found, tally.dropped)
    return found
