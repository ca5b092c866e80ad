"""Packing loses nothing, splits nothing, and fills rows."""

import random
from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.pack import Tokens, best_fit, one_each
from models.text.packed_rows import PackedRow

LENGTHS = st.lists(st.integers(1, 50), max_size=80)


def conversations(lengths: list[int]) -> list[Tokens]:
    return [(np.arange(n, dtype=np.int32) + 1000 * i, np.arange(n) % (i + 2) == 0) for i, n in enumerate(lengths)]


def unpacked(rows: list[PackedRow]) -> list[Tokens]:
    parts = []
    for row in rows:
        cuts = np.cumsum(row.lengths)[:-1]
        parts += zip(np.split(row.ids, cuts), np.split(row.mask, cuts), strict=True)
    return sorted(parts, key=lambda part: int(part[0][0]))


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(50, 80), st.integers(1, 30), st.integers(0, 5))
def test_every_conversation_is_in_one_row_whole(lengths: list[int], room: int, window: int, open_rows: int) -> None:
    given_ = conversations(lengths)
    rows = list(best_fit(given_, room, window, open_rows))
    assert all(0 < len(row.ids) == len(row.mask) == row.lengths.sum() <= room for row in rows)
    found = unpacked(rows)
    assert len(found) == len(given_)
    for (ids, mask), (want_ids, want_mask) in zip(found, given_, strict=True):
        assert np.array_equal(ids, want_ids) and np.array_equal(mask, want_mask)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(50, 80))
def test_no_two_rows_could_have_been_one(lengths: list[int], room: int) -> None:
    sizes = sorted(len(row.ids) for row in best_fit(conversations(lengths), room))
    assert len(sizes) < 2 or sizes[0] + sizes[1] > room


def test_rows_of_real_lengths_are_full() -> None:
    rng = random.Random(0)
    lengths = [min(3072, int(rng.lognormvariate(6.65, 0.55))) for _ in range(20_000)]
    rows = list(best_fit(conversations(lengths), 3072))
    assert sum(lengths) / (len(rows) * 3072) >= 0.97


def test_the_window_bounds_what_is_held() -> None:
    pulled, given_ = 0, conversations([30] * 400)

    def stream() -> Iterator[Tokens]:
        nonlocal pulled
        for tokens in given_:
            pulled += 1
            yield tokens

    next(best_fit(stream(), 50, window=20, open_rows=4))
    assert pulled == 20


def test_unpacked_rows_hold_one_conversation() -> None:
    rows = list(one_each(conversations([3, 1, 7])))
    assert [row.lengths.tolist() for row in rows] == [[3], [1], [7]]
