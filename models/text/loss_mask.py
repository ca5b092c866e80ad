"""From spans of rendered text to the tokens that make them up.

Two ways, of equal result. The general one asks the tokenizer for character offsets. Where every token stands for a
fixed number of bytes (byte-level BPE, or BPE with byte fallback, and no normaliser that changes the text), the sum of
those numbers tells where each token begins, and the tokenizer is spared the offsets: a quarter of its time. A text
whose bytes do not add up (an unknown token, a control token that swallows spaces) goes the general way.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

Span = tuple[int, int]
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"
_NEVER = -(1 << 24)
"""Bytes of the unknown token, which may stand for anything: no text adds up with it."""


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return [step for one in part[inner] for step in _steps(one, inner)] if part["type"] == "Sequence" else [part]


def _spaces_marked(step: dict[str, Any]) -> bool:
    return step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == _SPACE


class ByteCounts:
    """How many bytes of text each token stands for; `counts` is None where the tokenizer gives no such promise."""

    def __init__(self, backend: Tokenizer):
        self.counts: np.ndarray | None = None
        self.composed = False
        form = json.loads(backend.to_str())
        model, before = form["model"], _steps(form.get("pre_tokenizer"), "pretokenizers")
        normalizers = _steps(form.get("normalizer"), "normalizers")
        if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            return
        byte_level = any(step["type"] == "ByteLevel" and not step["add_prefix_space"] for step in before)
        kept = all(
            step["type"] in ("ByteLevel", "Digits", "Punctuation")
            or (step["type"] == "Split" and step["behavior"] != "Removed")
            for step in before
        )
        marked = [step for step in normalizers if _spaces_marked(step)]
        others = [step for step in normalizers if not _spaces_marked(step)]
        self.composed = bool(others)
        if not kept or any(step["type"] != "NFC" for step in others) or byte_level == bool(marked):
            return
        vocabulary = backend.get_vocab()
        self.counts = np.zeros(max(vocabulary.values()) + 1, np.int32)
        for word, i in vocabulary.items():
            if byte_level:
                self.counts[i] = len(word)
            else:
                self.counts[i] = 1 if _BYTE.fullmatch(word) else len(word.replace(_SPACE, " ").encode())
        for i, token in backend.get_added_tokens_decoder().items():
            self.counts[i] = len(token.content.encode())
        if model.get("unk_token") in vocabulary:
            self.counts[vocabulary[model["unk_token"]]] = _NEVER

    def ends(self, ids: np.ndarray, text: str, size: int) -> np.ndarray | None:
        """Where each token ends in the text's `size` bytes; None where they do not add up."""
        if self.counts is None or not len(ids):
            return None
        if self.composed and not text.isascii() and not unicodedata.is_normalized("NFC", text):
            return None
        ends = np.cumsum(self.counts[ids])
        return ends if ends[-1] == size else None


def _to_turn_end(ids: np.ndarray, first: int, stop: int, markers: np.ndarray) -> int:
    """The last marker in ids[first:stop], an end-of-turn token perhaps; -1 where there is none."""
    found = np.flatnonzero(markers[ids[first:stop]])
    return first + int(found[-1]) if len(found) else -1


def by_bytes(text: str, spans: Sequence[Span], ids: np.ndarray, counts: ByteCounts, markers: np.ndarray) -> Any:
    """The mask of the spans, without what the template writes after the end-of-turn token; None: ask for offsets."""
    ascii_only = text.isascii()
    content = None if ascii_only else text.encode()
    ends = counts.ends(ids, text, len(text) if content is None else len(content))
    if ends is None:
        return None
    mask = np.zeros(len(ids), bool)
    for start, end in spans:
        if end <= start:
            continue
        tail = end
        if not ascii_only:
            start, tail = len(text[:start].encode()), len(text[:end].encode())
        first = int(np.searchsorted(ends, start, "right"))
        stop = int(np.searchsorted(ends, tail - 1, "right")) + 1
        turn_end = _to_turn_end(ids, first, stop, markers)
        if turn_end >= 0:
            after = text[ends[turn_end] : end] if content is None else content[ends[turn_end] : tail].decode()
            stop = stop if after.strip() else turn_end + 1
        mask[first:stop] = True
    return mask


def by_offsets(
    encoding: Encoding, text: str, spans: Sequence[Span], ids: np.ndarray, markers: np.ndarray
) -> np.ndarray:
    """The same from the encoding's character offsets."""
    mask = np.zeros(len(ids), bool)
    for start, end in spans:
        first = next((t for c in range(start, end) if (t := encoding.char_to_token(c)) is not None), None)
        last = next((t for c in range(end - 1, start - 1, -1) if (t := encoding.char_to_token(c)) is not None), None)
        if first is None or last is None:
            continue
        stop = last + 1
        while stop < len(ids) and (chars := encoding.token_to_chars(stop)) is not None and chars[0] < end:
            stop += 1  # a character of several tokens
        turn_end = _to_turn_end(ids, first, stop, markers)
        if turn_end >= 0 and (chars := encoding.token_to_chars(turn_end)) is not None:
            stop = stop if text[chars[1] : end].strip() else turn_end + 1
        mask[first:stop] = True
    return mask
