"""What a run would trip over is said before its first step: tokenizer, tokens without a row, nothing to learn."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from models.text.packed_rows import PackedRow, collate, write_shards
from models.text.prompt import load_tokenizer, prompt_ids
from models.text.template import template_digest
from models.text.tokenizer_digest import tokenizer_digest
from tests.train.conftest import REPO, conversations, packed
from train.config import TrainConfig
from train.contract import check_rows, check_steps, check_tokenizer, supervised
from train.loss import next_tokens

VOCAB, LENGTH = 64, 40
TINY = REPO / "recipes" / "assets" / "tiny-gemma4"


def spelled(token: int) -> str:
    return f"token '<{token}>'"


def rows_with(folder: Path, change: Callable[[int, PackedRow], PackedRow]) -> Path:
    parts = conversations(12)
    write_shards([change(i, packed(parts[2 * i : 2 * i + 2])) for i in range(6)], folder, shard_rows=4)
    return folder


@pytest.mark.parametrize("seed", range(8))
def test_a_token_without_a_row_is_named_with_its_place(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    number, token = chance.randrange(6), VOCAB + chance.choice([0, 1, 7, 70_000])
    places = []

    def spoil(i: int, row: PackedRow) -> PackedRow:
        ids = row.ids.copy()
        if i == number:
            places.append(at := chance.randrange(len(ids)))
            ids[at] = token
        return PackedRow(ids, row.mask, row.lengths)

    folder = rows_with(tmp_path / "train", spoil)
    with pytest.raises(UserError) as told:
        check_rows(folder, VOCAB, LENGTH, spelled)
    assert told.value.what == f"token '<{token}>' has id {token}, the embedding {VOCAB} rows"
    assert told.value.where == f"{folder}: row {number}, token {places[0]}"
    check_rows(folder, token + 1, LENGTH, spelled)


def only_first(row: PackedRow) -> np.ndarray:
    """A mask of what begins a segment: nothing predicts it."""
    mask = np.zeros(len(row.ids), bool)
    mask[np.cumsum(row.lengths) - row.lengths] = True
    return mask


@pytest.mark.parametrize("mask", [only_first, lambda row: np.zeros(len(row.ids), bool)])
def test_nothing_supervised_is_an_error_and_some_is_said(tmp_path: Path, mask: Any, capsys: Any) -> None:
    idle = rows_with(tmp_path / "all", lambda _, row: PackedRow(row.ids, mask(row), row.lengths))
    with pytest.raises(UserError, match="none of the 6 rows has a supervised token"):
        check_rows(idle, VOCAB, LENGTH, spelled)
    some = rows_with(
        tmp_path / "some", lambda i, row: PackedRow(row.ids, mask(row) if i % 3 else row.mask, row.lengths)
    )
    check_rows(some, VOCAB, LENGTH, spelled)
    assert "warning: 4 of 6 rows" in capsys.readouterr().err
    with pytest.raises(UserError, match="max_length 8"):
        check_rows(some, VOCAB, 8, spelled)
    check_rows(tmp_path / "absent", VOCAB, LENGTH, spelled)


def test_supervised_tokens_are_those_the_loss_counts() -> None:
    chance = np.random.default_rng(0)
    for _ in range(50):
        lengths = chance.integers(1, 5, chance.integers(1, 5))
        total = int(lengths.sum())
        row = PackedRow(np.zeros(total, np.int32), chance.random(total) < 0.5, lengths)
        batch: Any = collate([row], 1, 20)
        assert supervised(row) == int(next_tokens(batch)[1].sum())


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(str(TINY))


def another_template(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = f"{tokenizer.chat_template}x"


def another_normalizer(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "an added token": (lambda each: each.add_tokens(["<verilog>"]), "another tokenizer"),
    "a special token": (lambda each: each.add_special_tokens({"additional_special_tokens": ["<a>"]}), "another tok"),
    "a normalizer": (another_normalizer, "another tokenizer"),
    "a template": (another_template, "another chat template"),
}


def dataset(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Write a COUNTER module"}]
    return {
        "template_digest": template_digest(tokenizer),
        "tokenizer_digest": tokenizer_digest(tokenizer),
        "probes": [{"messages": messages, "ids": prompt_ids(tokenizer, messages)}],
    }


@pytest.mark.parametrize("change", CHANGES)
def test_data_of_another_tokenizer_is_refused(tokenizer: PreTrainedTokenizerFast, change: str) -> None:
    told = dataset(tokenizer)
    check_tokenizer(tokenizer, str(TINY), Path("d"), told)
    other = copy.deepcopy(tokenizer)
    CHANGES[change][0](other)
    with pytest.raises(UserError, match=CHANGES[change][1]) as error:
        check_tokenizer(other, str(TINY), Path("d"), told)
    assert error.value.where == "d/dataset.json" and "tapeout data --model" in error.value.fix


def test_prompts_tell_where_there_is_no_digest(tokenizer: PreTrainedTokenizerFast) -> None:
    told = dataset(tokenizer)
    del told["tokenizer_digest"], told["template_digest"]
    check_tokenizer(tokenizer, str(TINY), Path("d"), told)
    other = copy.deepcopy(tokenizer)
    another_normalizer(other)
    with pytest.raises(UserError, match="another tokenizer"):
        check_tokenizer(other, str(TINY), Path("d"), told)


def test_a_saved_copy_is_the_same_tokenizer(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
    check_tokenizer(load_tokenizer(str(tmp_path)), str(tmp_path), Path("d"), dataset(tokenizer))


@pytest.mark.parametrize(
    ("steps", "warmup", "said"),
    [(100, 10, 0), (100, 100, 1), (100, 99, 0), (9, 2, 1), (10, 2, 0), (6, 10, 2), (1, 0, 1)],
)
def test_a_short_run_is_said(steps: int, warmup: int, said: int, capsys: Any) -> None:
    check_steps(TrainConfig(warmup_steps=warmup), steps)
    assert capsys.readouterr().err.count("warning") == said
