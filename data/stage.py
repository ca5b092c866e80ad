"""Stage 1: rows in, shards of token ids and loss masks out, with the figures of what was kept and why not the rest.

Rows stream through: read, cleaned, rendered, tokenised in batches (the next batch is rendered meanwhile), packed,
written. The same inputs give the same bytes.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from common.files import write_json
from common.progress import bar, log
from data.clean import Tally, examples
from data.config import DataConfig, DataInputs
from data.encode import REFUSED, encoded, sizer
from data.formats.example import Example
from data.limits import Limits, limits_of
from data.pack import Tokens, best_fit, one_each
from data.report import closing, report
from data.sources.files import count_rows
from data.window import Size, windows
from models.text.packed_rows import PackedRow, write_shards
from models.text.prompt import load_tokenizer, prompt_ids
from models.text.template import LEARN, Message, TemplateFault, pinned_day, template_digest
from models.text.tokenizer_digest import tokenizer_digest

PROBES = 8
TRAIN, VALIDATION, REPORT = "train", "validation", "dataset.json"


def _fitting(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, limits: Limits, found: Iterable[Example], tally: Tally
) -> Iterator[tuple[Example, Tokens]]:
    """Examples that have something to learn from and fit a row, counted."""
    size = sizer(config, tokenizer)
    for example, tokens in encoded(config, tokenizer, found, tally):
        length = len(tokens[0])
        tally.lengths[length] += 1
        if length > config.max_length and config.overflow == "window":
            yield from _counted(config, limits, _cut(config, tokenizer, example, size, tally), tally)
        elif length > config.max_length and config.overflow == "error":
            raise UserError(
                f"{length} tokens, more than max_length {config.max_length}",
                where=example.where,
                fix="raise data.max_length, or overflow: drop or window",
            )
        elif length > config.max_length:
            tally.dropped["too long"] += 1
        else:
            yield from _counted(config, limits, [(example, tokens)], tally)


def _cut(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, example: Example, size: Size, tally: Tally
) -> Iterator[tuple[Example, Tokens]]:
    """A row's windows, encoded. All stay on one side of the split."""
    messages, group = example.unfolded or example.messages, example.group or example.digest.hex()
    row = replace(example, messages=messages, unfolded=(), group=group)
    learnt = [_is_learnt(message) for message in messages if message["role"] == "assistant"]
    last_only = config.train_on == "last_turn" or (sum(learnt) == 1 and learnt[-1])
    left: list[Example] = []
    try:
        found = list(filter(_teaches, windows(row, config.max_length, size, last_only, left.append)))
    except TemplateFault:
        raise
    except UserError:  # of a part of the row
        if config.bad_rows == "error":
            raise
        tally.dropped[REFUSED] += 1
        return
    if not found:
        tally.dropped["too long"] += 1
        return
    tally.cut += 1
    tally.windows += len(found)
    tally.left += sum(map(_teaches, left))
    yield from encoded(config, tokenizer, found, tally, cut=True)


def _teaches(part: Example) -> bool:
    return not part.messages or any(map(_is_learnt, part.messages))


def _is_learnt(message: Message) -> bool:
    return message["role"] == "assistant" and message.get(LEARN) is not False


def _counted(
    config: DataConfig, limits: Limits, found: Iterable[tuple[Example, Tokens]], tally: Tally
) -> Iterator[tuple[Example, Tokens]]:
    for example, (ids, mask) in found:
        limits.check(ids, example.where)
        if not mask.any():
            if config.empty_mask == "error":
                raise UserError(
                    "no token of the row is supervised: its answers are not to be learnt, or the template shows none",
                    where=example.where,
                    fix="check the row and the chat template, or set data.empty_mask: drop",
                )
            tally.dropped["nothing supervised"] += 1
            continue
        tally.kept += 1
        tally.tokens += len(ids)
        tally.supervised += int(mask.sum())
        if example.messages:
            tally.endless += not limits.ends(ids, mask)
            if len(tally.probes) < PROBES:
                tally.probes.append(_probe(limits.tokenizer, example))
        yield example, (ids, mask)


def _probe(tokenizer: PreTrainedTokenizerFast, example: Example) -> dict[str, Any]:
    last = max(i for i, message in enumerate(example.messages) if message["role"] == "assistant")
    turns = list(example.messages[:last]) or list(example.messages)
    asked = [{key: value for key, value in message.items() if key != LEARN} for message in turns]
    tools = {"tools": list(example.tools)} if example.tools else {}
    return {"messages": asked, **tools, "ids": prompt_ids(tokenizer, asked, example.tools)}


def in_validation(example: Example, share: float, seed: int) -> bool:
    """Decided by the row's content or group alone: it stays on its side whatever rows come and go around it."""
    key = replace(example, text=example.group, messages=()) if example.group else example
    digest = int.from_bytes(key.digest[:8], "little") ^ (seed * 0x9E3779B97F4A7C15 % 2**64)
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


def _packer(config: DataConfig) -> Callable[[Iterable[Tokens]], Iterator[PackedRow]]:
    return one_each if config.packing == "none" else lambda tokens: best_fit(tokens, config.max_length)


def run(config: DataConfig, inputs: DataInputs, out: Path) -> dict[str, Any]:
    """Write train/, validation/ and dataset.json into `out`; returns the figures. Raises UserError for rows that cannot
    be used, and where none is left."""
    if config.contamination in ("drop", "error") and config.benchmark is None:
        what = f"contamination: {config.contamination} compares with a benchmark, and there is none"
        raise UserError(what, where="data.contamination", fix="name a folder as data.benchmark")
    for name in (TRAIN, VALIDATION):
        shutil.rmtree(out / name, ignore_errors=True)
    tokenizer = load_tokenizer(inputs.model, config.date)
    tally, pack = Tally(), _packer(config)
    with tempfile.TemporaryFile(dir=out) as aside:
        with bar("data", count_rows(config), "rows") as progress:
            found = examples(config, tally, progress)
            kept = _fitting(config, tokenizer, limits_of(inputs.model, tokenizer), found, tally)
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
    figures, more = report(config, tally, train_rows, validation_rows)
    day = pinned_day(tokenizer)
    dated = {} if day is None else {"date": day}
    digests = {"template_digest": template_digest(tokenizer), "tokenizer_digest": tokenizer_digest(tokenizer)}
    write_json(out / REPORT, {**figures, **more, **dated, **digests})
    for line in closing(config, tally, day):
        log(f"data: {line}")
    return {**figures, "dropped": sum(tally.dropped.values())}
