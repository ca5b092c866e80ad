"""Stage 1: rows in, shards of token ids and loss masks out, with the figures of what was kept and why not the rest.

Rows stream through: read, cleaned, rendered, tokenised in batches (the next batch is rendered meanwhile), packed,
written. The same inputs give the same bytes.
"""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from common.files import write_json
from common.progress import Bar, bar
from data.config import DataConfig, DataInputs, Source
from data.encode import document, encoded
from data.files import all_rows, count_rows
from data.formats import Dropped, Example, example_of, renamed
from data.pack import Tokens, best_fit, one_each
from data.rows import BadRow, column
from models.prompt import Message, load_tokenizer, prompt_ids, template_digest
from models.shards import Row, write_shards

PROBES = 8
TRAIN, VALIDATION, REPORT = "train", "validation", "dataset.json"


@dataclass
class Tally:
    """What was seen and kept, and the first prompts, kept as probes for the server."""

    rows: int = 0
    kept: int = 0
    tokens: int = 0
    supervised: int = 0
    validation_kept: int = 0
    validation_tokens: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    probes: list[dict[str, Any]] = field(default_factory=list)


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


def _examples(config: DataConfig, tally: Tally, progress: Bar) -> Iterator[Example]:
    """Cleaned rows of all sources, exact duplicates left out."""
    seen: set[bytes] = set()
    for source, where, row in all_rows(config):
        tally.rows += 1
        progress.advance()
        try:
            example = _example(config, source, where, row)
        except Dropped as reason:
            tally.dropped[str(reason)] += 1
            continue
        except BadRow:
            if config.bad_rows == "error":
                raise
            tally.dropped["bad row"] += 1
            continue
        digest = example.digest()
        if digest in seen:
            tally.dropped["duplicate"] += 1
            continue
        seen.add(digest)
        yield example


def _fitting(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, examples: Iterable[Example], tally: Tally
) -> Iterator[tuple[Example, Tokens]]:
    """Examples that have something to learn from and fit a row, counted."""
    for example, (ids, mask) in encoded(config, tokenizer, examples):
        if not example.messages:
            ids, mask = document(tokenizer, ids)
        tally.lengths[len(ids)] += 1
        if not mask.any() and config.empty_mask == "drop":
            tally.dropped["nothing supervised"] += 1
            continue
        if not mask.any():
            raise UserError(
                "no token of the row is supervised: the template shows no assistant turn",
                where=example.where,
                fix="check the row and the chat template",
            )
        if len(ids) > config.max_length and config.overflow == "error":
            raise UserError(
                f"{len(ids)} tokens, more than max_length {config.max_length}",
                where=example.where,
                fix="raise data.max_length, or overflow: drop",
            )
        if len(ids) > config.max_length:
            tally.dropped["too long"] += 1
            continue
        tally.kept += 1
        tally.tokens += len(ids)
        tally.supervised += int(mask.sum())
        if example.messages and len(tally.probes) < PROBES:
            tally.probes.append(_probe(tokenizer, example.messages))
        yield example, (ids, mask)


def _probe(tokenizer: PreTrainedTokenizerFast, messages: tuple[Message, ...]) -> dict[str, Any]:
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    asked = list(messages[:last]) or list(messages)
    return {"messages": asked, "ids": prompt_ids(tokenizer, asked)}


def in_validation(example: Example, share: float, seed: int) -> bool:
    """Decided by the row's content or group alone: it stays on its side whatever rows come and go around it."""
    key = replace(example, text=example.group, messages=()) if example.group else example
    digest = int.from_bytes(key.digest()[:8], "little") ^ (seed * 0x9E3779B97F4A7C15 % 2**64)
    digest = (digest ^ (digest >> 31)) * 0xBF58476D1CE4E5B9 % 2**64
    return (digest ^ (digest >> 29)) < share * 2**64


def _split(
    kept: Iterable[tuple[Example, Tokens]], config: DataConfig, aside: BinaryIO, tally: Tally
) -> Iterator[Tokens]:
    """The training part of the stream; the validation part goes to the file `aside`, so that memory stays level."""
    for example, tokens in kept:
        if in_validation(example, config.validation, config.seed):
            tally.validation_kept += 1
            tally.validation_tokens += len(tokens[0])
            for part in tokens:
                np.save(aside, part)
        else:
            yield tokens


def _set_aside(aside: BinaryIO, count: int) -> Iterator[Tokens]:
    aside.seek(0)
    for _ in range(count):
        yield np.load(aside), np.load(aside)


def length_figures(lengths: Counter[int], max_length: int) -> dict[str, Any]:
    """Quantiles of the conversations' tokens, and the share of them that each `max_length` would keep whole."""
    sizes = np.array(sorted(lengths), np.int64)
    upto = np.cumsum([lengths[int(size)] for size in sizes])
    share = {q: int(sizes[np.searchsorted(upto, q / 100 * upto[-1])]) for q in (50, 95, 99, 99.5)}
    rooms = sorted({*(2**n for n in range(7, 16)), max_length})
    kept = {str(room): round(float(upto[sizes <= room].max(initial=0) / upto[-1]), 5) for room in rooms}
    return {**{f"p{q}": size for q, size in share.items()}, "max": int(sizes[-1]), "kept_at": kept}


def _packer(config: DataConfig) -> Callable[[Iterable[Tokens]], Iterator[Row]]:
    return one_each if config.packing == "none" else lambda tokens: best_fit(tokens, config.max_length)


def run(config: DataConfig, inputs: DataInputs, out: Path) -> dict[str, Any]:
    """Write train/, validation/ and dataset.json into `out`; returns the figures."""
    for name in (TRAIN, VALIDATION):
        shutil.rmtree(out / name, ignore_errors=True)
    tokenizer = load_tokenizer(inputs.model)
    tally, pack = Tally(), _packer(config)
    with tempfile.TemporaryFile(dir=out) as aside:
        with bar("data", count_rows(config), "rows") as progress:
            kept = _fitting(config, tokenizer, _examples(config, tally, progress), tally)
            train_rows = write_shards(pack(_split(kept, config, aside, tally)), out / TRAIN)
        validation_rows = write_shards(pack(_set_aside(aside, tally.validation_kept)), out / VALIDATION)
    if train_rows == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.dropped.items())) or "no rows at all"
        if tally.validation_kept:
            reasons += f", {tally.validation_kept} in validation"
        raise UserError(
            f"0 rows left to train on ({tally.rows} read; {reasons})",
            where=", ".join(source.path for source in config.sources),
            fix="check the sources and their format, raise data.max_length, or lower data.validation",
        )
    figures = {
        "rows": tally.rows,
        "kept": tally.kept,
        "tokens": tally.tokens,
        "supervised": tally.supervised,
        "packed_rows": train_rows,
        "validation_rows": validation_rows,
        "efficiency": round((tally.tokens - tally.validation_tokens) / (train_rows * config.max_length), 4),
        "max_length": config.max_length,
    }
    lengths = length_figures(tally.lengths, config.max_length)
    shares = {"supervised_share": round(tally.supervised / tally.tokens, 4), "lengths": lengths}
    report = {**figures, **shares, "dropped": dict(sorted(tally.dropped.items())), "probes": tally.probes}
    write_json(out / REPORT, {**report, "template_digest": template_digest(tokenizer)})
    return {**figures, "dropped": sum(tally.dropped.values())}
