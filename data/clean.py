"""From raw rows to the examples worth encoding: each step leaves rows out, and counts them under its reason."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from common.progress import Bar
from data.config import DataConfig, Source
from data.formats import Dropped, Example, example_of, renamed
from data.screen.compile_check import compiling
from data.screen.contamination import Contamination, judged
from data.screen.near import without_near_duplicates
from data.sources.files import all_rows
from data.sources.json_rows import BadRow, column


@dataclass
class Tally:
    """What was seen and kept, and the first prompts, kept as probes for the server.

    `kept` counts conversations in the shards; one that was cut into windows counts as each of them, and once in `cut`.
    """

    rows: int = 0
    kept: int = 0
    cut: int = 0
    windows: int = 0
    tokens: int = 0
    supervised: int = 0
    validation_kept: int = 0
    validation_tokens: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    probes: list[dict[str, Any]] = field(default_factory=list)
    contamination: Contamination = field(default_factory=Contamination)


def _example(config: DataConfig, source: Source, where: str, row: dict[str, Any] | BadRow) -> Example:
    if isinstance(row, BadRow):
        raise row
    row = renamed(row, source.columns, where)
    example = example_of(row, where, source.format, config.strip_reasoning, config.answer == "code")
    if config.validation_group is None:
        return example
    value = column(row, config.validation_group, object, where)
    try:
        return replace(example, group=json.dumps(value, sort_keys=True))
    except (TypeError, ValueError):
        what = f"the group {config.validation_group!r} is a {type(value).__name__}, which JSON cannot hold"
        raise BadRow(what, where=where, fix="name a column of text or numbers") from None


def _readable(config: DataConfig, tally: Tally, progress: Bar | None) -> Iterator[Example]:
    """Rows of all sources as examples, exact duplicates left out."""
    seen: set[int] = set()
    for source, where, row in all_rows(config):
        tally.rows += 1
        if progress is not None:
            progress.advance()
        try:
            example = _example(config, source, where, row)
            digest = int.from_bytes(example.digest[:8], "little")
        except Dropped as reason:
            tally.dropped[str(reason)] += 1
            continue
        except BadRow:
            if config.bad_rows == "error":
                raise
            tally.dropped["bad row"] += 1
            continue
        if digest in seen:
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
