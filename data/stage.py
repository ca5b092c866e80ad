"""Stage 1: rows in, shards of token ids and loss masks out, with the figures of what was kept and why not the rest.

Rows stream through: read, cleaned, rendered, tokenised in batches (the next batch is rendered meanwhile), packed,
written. The same inputs give the same bytes.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from common.files import write_json
from common.progress import Bar, bar
from data.config import DataConfig, DataInputs
from data.formats import Dropped, Example, example_of
from data.pack import Tokens, best_fit, one_each
from data.rows import count_lines, read_rows
from models.prompt import (
    Message,
    Rendered,
    load_tokenizer,
    prompt_ids,
    render,
    render_text,
    template_digest,
    tokenize,
)
from models.shards import Row, write_shards

BATCH = 256
PROBES = 8
TRAIN, VALIDATION, REPORT = "train", "validation", "dataset.json"


@dataclass
class Tally:
    """What was seen and kept, and the first prompts, kept as probes for the server."""

    rows: int = 0
    kept: int = 0
    tokens: int = 0
    supervised: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    probes: list[dict[str, Any]] = field(default_factory=list)


def _examples(config: DataConfig, tally: Tally, progress: Bar) -> Iterator[Example]:
    """Cleaned rows of all sources, exact duplicates left out."""
    seen: set[bytes] = set()
    for source in config.sources:
        for where, row in read_rows(source.path, source.limit):
            tally.rows += 1
            progress.advance()
            try:
                example = example_of(row, where, source.format, config.strip_reasoning)
            except Dropped as reason:
                tally.dropped[str(reason)] += 1
                continue
            digest = example.digest()
            if digest in seen:
                tally.dropped["duplicate"] += 1
                continue
            seen.add(digest)
            yield example


def _rendered(tokenizer: PreTrainedTokenizerFast, example: Example) -> Rendered:
    try:
        return render(tokenizer, example.messages) if example.messages else render_text(tokenizer, example.text)
    except UserError as error:
        raise UserError(error.what, where=error.where or example.where, fix=error.fix) from error


def _document(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> Tokens:
    """bos + ids + eos, all supervised but the first token, which nothing before it predicts."""
    around = [[token] if token is not None else [] for token in (tokenizer.bos_token_id, tokenizer.eos_token_id)]
    ids = np.concatenate([np.array(around[0], np.int32), ids, np.array(around[1], np.int32)])
    mask = np.ones(len(ids), bool)
    mask[:1] = False
    return ids, mask


def _encoded(tokenizer: PreTrainedTokenizerFast, examples: Iterable[Example]) -> Iterator[tuple[Example, Tokens]]:
    """Tokenise in batches on another thread, one batch ahead of what is being rendered."""
    stream = iter(examples)
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        while True:
            group = list(islice(stream, BATCH))
            rendered = [_rendered(tokenizer, example) for example in group]
            ahead = (group, pool.submit(tokenize, tokenizer, rendered)) if group else None
            if waiting:
                yield from zip(waiting[0], waiting[1].result(), strict=True)
            if not ahead:
                return
            waiting = ahead


def _fitting(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, examples: Iterable[Example], tally: Tally
) -> Iterator[tuple[Example, Tokens]]:
    """Examples that have something to learn from and fit a row, counted."""
    for example, (ids, mask) in _encoded(tokenizer, examples):
        if not example.messages:
            ids, mask = _document(tokenizer, ids)
        if not mask.any():
            raise UserError(
                "no token of the row is supervised: the template shows no assistant turn",
                where=example.where,
                fix="check the row and the chat template",
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
    """Decided by the row's content alone: it stays on its side whatever rows come and go around it."""
    digest = int.from_bytes(example.digest()[:8], "little") ^ (seed * 0x9E3779B97F4A7C15 % 2**64)
    digest = (digest ^ (digest >> 31)) * 0xBF58476D1CE4E5B9 % 2**64
    return (digest ^ (digest >> 29)) < share * 2**64


def _split(kept: Iterable[tuple[Example, Tokens]], config: DataConfig, aside: list[Tokens]) -> Iterator[Tokens]:
    """The training part of the stream; the validation part goes `aside`."""
    for example, tokens in kept:
        if in_validation(example, config.validation, config.seed):
            aside.append(tokens)
        else:
            yield tokens


def _packer(config: DataConfig) -> Callable[[Iterable[Tokens]], Iterator[Row]]:
    return one_each if config.packing == "none" else lambda tokens: best_fit(tokens, config.max_length)


def run(config: DataConfig, inputs: DataInputs, out: Path) -> dict[str, Any]:
    """Write train/, validation/ and dataset.json into `out`; returns the figures."""
    for name in (TRAIN, VALIDATION):
        shutil.rmtree(out / name, ignore_errors=True)
    tokenizer = load_tokenizer(inputs.model)
    tally, aside, pack = Tally(), [], _packer(config)
    total = sum(min(count_lines(source.path), source.limit or 2**63) for source in config.sources)
    with bar("data", total, "rows") as progress:
        kept = _fitting(config, tokenizer, _examples(config, tally, progress), tally)
        train_rows = write_shards(pack(_split(kept, config, aside)), out / TRAIN)
    if train_rows == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.dropped.items())) or "no rows at all"
        if aside:
            reasons += f", {len(aside)} in validation"
        raise UserError(
            f"0 rows left to train on ({tally.rows} read; {reasons})",
            where=", ".join(source.path for source in config.sources),
            fix="check the sources and their format, raise data.max_length, or lower data.validation",
        )
    validation_tokens = sum(len(ids) for ids, _ in aside)
    validation_rows = write_shards(pack(aside), out / VALIDATION)
    figures = {
        "rows": tally.rows,
        "kept": tally.kept,
        "tokens": tally.tokens,
        "supervised": tally.supervised,
        "packed_rows": train_rows,
        "validation_rows": validation_rows,
        "efficiency": round((tally.tokens - validation_tokens) / (train_rows * config.max_length), 4),
        "max_length": config.max_length,
    }
    report = {**figures, "dropped": dict(sorted(tally.dropped.items())), "probes": tally.probes}
    write_json(out / REPORT, {**report, "template_digest": template_digest(tokenizer)})
    return {**figures, "dropped": sum(tally.dropped.values())}
