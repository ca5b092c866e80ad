"""What a run can know before its first step: that data and base belong together, and that there is something to learn.

Every row is looked at once: a token without an embedding row is NaN, hours later.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from common.progress import log
from models.spec import DecoderSpec
from models.text.packed_rows import PackedRow, read_rows
from models.text.prompt import load_tokenizer, prompt_ids
from models.text.template import template_digest
from models.text.tokenizer_digest import tokenizer_digest
from train.config import TrainConfig

SPLITS = ("train", "validation")
FEW_STEPS = 10


def check_data(model: str, data: Path, dataset: dict[str, Any], spec: DecoderSpec) -> None:
    """Raises UserError where `data` was prepared with another tokenizer than the base's, or a row cannot be learnt."""
    # A base may come without a tokenizer, where other tools prepared the rows.
    there = (Path(model) / "tokenizer.json").is_file()
    tokenizer = load_tokenizer(model, dataset.get("date")) if there else None
    if tokenizer is not None:
        check_tokenizer(tokenizer, model, data, dataset)
    vocab = spec.vocab if spec.per_layer_input is None else min(spec.vocab, spec.per_layer_input.vocab)

    def spelled(token: int) -> str:
        return f"token {tokenizer.convert_ids_to_tokens(token)!r}" if tokenizer is not None else "a token"

    for split in SPLITS:
        check_rows(data / split, vocab, dataset["max_length"], spelled)


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, model: str, data: Path, dataset: dict[str, Any]) -> None:
    """By the digests that the data stage noted and, where there are none, by the prompts that it rendered. Raises
    UserError where they are another's."""
    other = None
    if dataset.get("tokenizer_digest", own := tokenizer_digest(tokenizer)) != own:
        other = "tokenizer"
    elif dataset.get("template_digest", own := template_digest(tokenizer)) != own:
        other = "chat template"
    elif "tokenizer_digest" not in dataset:
        probes = dataset.get("probes", [])
        rendered = (prompt_ids(tokenizer, each["messages"], each.get("tools", ())) for each in probes)
        other = "tokenizer" if any(ids != each["ids"] for ids, each in zip(rendered, probes, strict=True)) else None
    if other is not None:
        raise UserError(
            f"the data was prepared with another {other} than that of {model}",
            where=str(data / "dataset.json"),
            fix=f"run the data stage with this model: tapeout data --model {model} ...",
        )


def check_rows(folder: Path, vocab: int, max_length: int, spelled: Callable[[int], str]) -> None:
    """Every token has a row in the embedding, every row fits, and there are supervised tokens. Raises UserError with
    the row and the token otherwise."""
    count = idle = 0
    for row in read_rows(folder):
        where = f"{folder}: row {count}"
        if len(row.ids) > max_length:
            what = f"a packed row of {len(row.ids)} tokens, max_length {max_length}"
            raise UserError(what, where=where, fix="run the data stage again")
        if (wrong := np.flatnonzero((row.ids < 0) | (row.ids >= vocab))).size:
            token = int(row.ids[wrong[0]])
            raise UserError(
                f"{spelled(token)} has id {token}, the embedding {vocab} rows",
                where=f"{where}, token {wrong[0]}",
                fix="resize the model's embedding to its tokenizer, or prepare the data with the tokenizer of the base",
            )
        count += 1
        idle += supervised(row) == 0
    if count and idle == count:
        what = f"none of the {count} rows has a supervised token: there is nothing to learn"
        raise UserError(what, where=str(folder), fix="check the rows' roles and masks, then run the data stage again")
    if idle:
        log(f"train: warning: {idle} of {count} rows in {folder} have no supervised token")


def supervised(row: PackedRow) -> int:
    """Tokens that are targets: what begins a segment has nothing that predicts it."""
    targets = np.array(row.mask)
    targets[np.cumsum(row.lengths) - row.lengths] = False
    return int(targets.sum())


def check_steps(config: TrainConfig, steps: int) -> None:
    """Say what is likely a mistake."""
    if config.warmup_steps >= steps:
        log(f"train: warning: the warm-up of {config.warmup_steps} steps is as long as the run ({steps}), and is cut")
    if steps < FEW_STEPS:
        log(f"train: warning: {steps} steps are few to learn from: raise train.steps or train.epochs, or add rows")
