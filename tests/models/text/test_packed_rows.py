"""Shards give back the rows that went in, in an order that depends on the seed and the step alone."""

import hashlib
import json
import resource
import signal
from pathlib import Path

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from models.text.packed_rows import PackedRow, count_rows, open_batches, read_rows, write_shards

T = 16


def row(number: int) -> PackedRow:
    rng = np.random.default_rng(number)
    lengths = rng.integers(1, 5, rng.integers(1, 4)).astype(np.int32)
    total = int(lengths.sum())
    ids = rng.integers(1, 70_000 if number % 2 else 300, total).astype(np.int32)
    ids[0] = number
    return PackedRow(ids, rng.random(total) < 0.5, lengths)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    assert write_shards((row(i) for i in range(23)), folder, shard_rows=10) == 23
    return folder


def first_ids(batches: list[dict[str, np.ndarray]]) -> list[int]:
    return [
        int(i) for batch in batches for i, s in zip(batch["tokens"][:, 0], batch["segments"][:, 0], strict=True) if s
    ]


def take(iterator: grain.DatasetIterator, n: int) -> list[dict[str, np.ndarray]]:
    return [next(iterator) for _ in range(n)]


def same(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1), min_size=1, max_size=5))
def test_a_row_survives_its_bytes(segments: list[list[tuple[int, bool]]]) -> None:
    flat = [pair for segment in segments for pair in segment]
    lengths = np.array([len(segment) for segment in segments], np.int32)
    before = PackedRow(np.array([i for i, _ in flat], np.int32), np.array([m for _, m in flat]), lengths)
    after = PackedRow.from_bytes(before.to_bytes())
    for name, kind in (("ids", np.int32), ("mask", np.bool_), ("lengths", np.int32)):
        assert np.array_equal(getattr(before, name), getattr(after, name)) and getattr(after, name).dtype == kind


def test_shards_keep_rows_and_order(shards: Path) -> None:
    assert [f.name for f in sorted(shards.iterdir())] == [f"{i:05d}.array_record" for i in range(3)]
    assert count_rows(shards) == 23
    assert [int(one.ids[0]) for one in read_rows(shards)] == list(range(23))


def test_batches_are_static_and_mark_segments(shards: Path) -> None:
    batch = next(open_batches(shards, batch_size=4, max_length=T, seed=0))
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "tokens": ((4, T), "int32"),
        "mask": ((4, T), "bool"),
        "segments": ((4, T), "int32"),
        "positions": ((4, T), "int32"),
    }
    for b in range(4):
        want = row(int(batch["tokens"][b, 0]))
        n = len(want.ids)
        assert np.array_equal(batch["tokens"][b, :n], want.ids) and np.array_equal(batch["mask"][b, :n], want.mask)
        assert batch["segments"][b, :n].tolist() == [s for s, k in enumerate(want.lengths, 1) for _ in range(k)]
        assert batch["positions"][b, :n].tolist() == [p for k in want.lengths for p in range(k)]
        assert not any(batch[name][b, n:].any() for name in batch)


def test_each_epoch_has_every_row_once_in_another_order(shards: Path) -> None:
    seen = first_ids(take(open_batches(shards, batch_size=23, max_length=T, seed=7), 3))
    epochs = [seen[i : i + 23] for i in (0, 23, 46)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(range(23))
    other = first_ids(take(open_batches(shards, batch_size=23, max_length=T, seed=8), 1))
    assert other != epochs[0]


def test_one_epoch_ends_with_a_padded_batch(shards: Path) -> None:
    batches = list(open_batches(shards, batch_size=5, max_length=T, seed=1, epochs=1))
    assert [batch["tokens"].shape for batch in batches] == [(5, T)] * 5
    assert sorted(first_ids(batches)) == list(range(23))
    assert not batches[-1]["segments"][3:].any() and not batches[-1]["mask"][3:].any()


@pytest.mark.parametrize("stop", [0, 1, 3, 7, 12])
def test_the_state_goes_on_exactly_where_it_was_taken(shards: Path, stop: int) -> None:
    def fresh() -> grain.DatasetIterator:
        return open_batches(shards, batch_size=4, max_length=T, seed=5)

    iterator = fresh()
    take(iterator, stop)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = take(iterator, 9)
    resumed = fresh()
    take(resumed, 2)
    resumed.set_state(state)
    assert same(rest, take(resumed, 9))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batches_of_one(shards: Path, processes: int) -> None:
    whole = take(open_batches(shards, batch_size=8, max_length=T, seed=3), 6)
    shares = [
        take(open_batches(shards, batch_size=8, max_length=T, seed=3, process_index=p, process_count=processes), 6)
        for p in range(processes)
    ]
    joined = [{k: np.concatenate([share[i][k] for share in shares]) for k in whole[0]} for i in range(6)]
    assert same(whole, joined)


def test_worker_processes_change_nothing(shards: Path) -> None:
    def opened(workers: int) -> grain.DatasetIterator:
        return open_batches(shards, batch_size=4, max_length=T, seed=3, workers=workers)

    iterator = opened(2)
    assert same(take(opened(0), 5), take(iterator, 5))
    state = iterator.get_state()
    rest = take(iterator, 3)
    iterator.close()
    resumed = opened(2)
    resumed.set_state(state)
    assert same(rest, take(resumed, 3))
    resumed.close()


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    def digest(folder: Path) -> list[str]:
        write_shards((row(i) for i in range(200)), folder, shard_rows=64)
        return [hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())]

    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_what_cannot_be_read_is_a_user_error(tmp_path: Path) -> None:
    assert count_rows(tmp_path / "none") == 0
    with pytest.raises(UserError, match="no rows to read"):
        open_batches(tmp_path, batch_size=1, max_length=T, seed=0)
    write_shards([row(1)], tmp_path / "a")
    with pytest.raises(UserError, match="does not divide"):
        open_batches(tmp_path / "a", batch_size=3, max_length=T, seed=0, process_count=2)
    with pytest.raises(UserError, match="max_length 1"):
        next(open_batches(tmp_path / "a", batch_size=1, max_length=1, seed=0))
    with pytest.raises(UserError, match="did not write"):
        PackedRow.from_bytes(b"else")
    shard = tmp_path / "a" / "00000.array_record"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        count_rows(tmp_path / "a")


def test_a_file_that_cannot_grow_is_a_user_error(tmp_path: Path) -> None:
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            write_shards((row(i) for i in range(5000)), tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
