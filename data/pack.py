"""Best-fit packing: whole conversations side by side in rows of at most `max_length` tokens.

Conversations arrive as a stream. A window of them is packed longest first, each into the fullest row it fits; rows with
room left stay open for the next window, so memory depends on the window and not on how many conversations there are.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from models.text.packed_rows import PackedRow

Tokens = tuple[np.ndarray, np.ndarray]
"""Ids int32 [t] and mask bool [t] of one conversation."""

WINDOW = 8192
OPEN_ROWS = 512


def _row(parts: list[Tokens]) -> PackedRow:
    ids, masks = zip(*parts, strict=True)
    return PackedRow(np.concatenate(ids), np.concatenate(masks), np.array([len(one) for one in ids], np.int32))


def one_each(conversations: Iterable[Tokens]) -> Iterator[PackedRow]:
    """No packing: a conversation per row."""
    for tokens in conversations:
        yield _row([tokens])


def best_fit(
    conversations: Iterable[Tokens], max_length: int, window: int = WINDOW, open_rows: int = OPEN_ROWS
) -> Iterator[PackedRow]:
    """Yield packed rows. Every conversation is at most `max_length` tokens and stays whole."""
    rows: dict[int, list[Tokens]] = {}
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted: the tightest fit is the first that is large enough
    count = 0
    stream = iter(conversations)
    while group := list(islice(stream, window)):
        for tokens in sorted(group, key=lambda one: -len(one[0])):
            size = len(tokens[0])
            at = bisect_left(room, (size, -1))
            if at < len(room):
                left, number = room.pop(at)
            else:
                left, number, count = max_length, count, count + 1
                rows[number] = []
            rows[number].append(tokens)
            if left > size:
                insort(room, (left - size, number))
            else:
                yield _row(rows.pop(number))
        while len(room) > open_rows:
            yield _row(rows.pop(room.pop(0)[1]))
    for number in sorted(rows):
        yield _row(rows[number])
