"""Both ways from characters to tokens agree on every kind of tokenizer that promises bytes; others promise none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from models.text.loss_mask import ByteCounts, by_bytes, by_offsets

SHIPPED = Path(__file__).parents[3] / "recipes" / "assets" / "tiny-gemma4" / "tokenizer.json"
CONTROL = ["<unk>", "<bos>", "<turn|>"]
TEXTS = ["module top (\n  input a\n);\n\tassign q = a & b;", "é日本語🙂 q <= 1'b0;", "``` x\n\n  y"] * 5


def byte_level(*normalizer: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    if normalizer:
        tokenizer.normalizer = normalizer[0]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=CONTROL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def byte_fallback(unknown: bool = False) -> Tokenizer:
    """As Gemma: spaces marked, bytes where a character has no token; `unknown`: the unknown token instead."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=CONTROL, limit_alphabet=40)
    tokenizer.train_from_iterator(["module top assign q é"] * 5, trainer)
    form = json.loads(tokenizer.to_str())
    if not unknown:
        form["model"]["byte_fallback"] = True
        size = len(form["model"]["vocab"])
        form["model"]["vocab"] |= {f"<0x{i:02X}>": size + i for i in range(256)}
    return Tokenizer.from_str(json.dumps(form))


TOKENIZERS = {
    "byte level": byte_level(),
    "composed": byte_level(normalizers.NFC()),
    "byte fallback": byte_fallback(),
    "unknown": byte_fallback(unknown=True),
    "shipped": Tokenizer.from_file(str(SHIPPED)),
}
COUNTS = {name: ByteCounts(tokenizer) for name, tokenizer in TOKENIZERS.items()}
PIECES = st.sampled_from([*TEXTS[:3], *CONTROL, " ", "\n", "e\u0301", "\u2581", "日", "🙂", "x", "é "])


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=12), st.data())
def test_bytes_and_offsets_agree(name: str, parts: list[str], data: st.DataObject) -> None:
    backend = TOKENIZERS[name]
    text, counts = "".join(parts), COUNTS[name]
    assert counts.counts is not None
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=4)))
    spans = list(zip(places[::2], places[1::2], strict=False))
    markers = np.zeros(backend.get_vocab_size(), bool)
    markers[[i for i, token in backend.get_added_tokens_decoder().items() if not token.content.isspace()]] = True
    encoding = backend.encode(text, add_special_tokens=False)
    ids = np.array(encoding.ids, np.int32)
    fast = by_bytes(text, spans, ids, counts, markers)
    if fast is not None:
        assert fast.tolist() == by_offsets(encoding, text, spans, ids, markers).tolist()
    plain = "e\u0301" not in text and "\u2581" not in text
    assert fast is not None or name == "unknown" or "<unk>" in text or not plain


@pytest.mark.parametrize("name", ["lowercase", "prefix", "wordpiece", "removed"])
def test_a_tokenizer_that_changes_the_text_promises_nothing(name: str) -> None:
    form = json.loads(byte_level().to_str())
    if name == "lowercase":
        form["normalizer"] = {"type": "Lowercase"}
    elif name == "prefix":
        form["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True
    elif name == "removed":
        form["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"
    else:
        model = {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##"}
        form["model"] = model | {"max_input_chars_per_word": 100, "vocab": {"<unk>": 0, "a": 1}}
    assert ByteCounts(Tokenizer.from_str(json.dumps(form))).counts is None
