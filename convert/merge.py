"""The merge itself: W + scale * B @ A in float32, rounded once to the base's type, a block of rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader

import numpy as np

from common.errors import UserError
from convert.adapter import Pair, Value
from convert.tensors import FLOATS, Entry, blocks, read_array, read_rows


@dataclass
class Change:
    """Sums over the elements of one or more tensors: `delta` is the update before the cast, `moved` = W' - W after."""

    delta_delta: float = 0.0
    moved_delta: float = 0.0
    error_error: float = 0.0
    most: float = 0.0

    def add(self, delta: np.ndarray, moved: np.ndarray) -> None:
        d, m = delta.ravel(), moved.ravel()
        self.delta_delta += float(np.dot(d, d))
        self.moved_delta += float(np.dot(m, d))
        lost = m - d
        self.error_error += float(np.dot(lost, lost))
        self.most = max(self.most, float(np.abs(m).max(initial=0.0)))

    def include(self, other: "Change") -> None:
        self.delta_delta += other.delta_delta
        self.moved_delta += other.moved_delta
        self.error_error += other.error_error
        self.most = max(self.most, other.most)

    @property
    def kept(self) -> float | None:
        """Share of the delta's norm, along the delta, that survived the cast; None: there is no delta."""
        return self.moved_delta / self.delta_delta if self.delta_delta else None

    @property
    def error(self) -> float | None:
        """Norm of what the cast changed, as a share of the delta's norm."""
        return (self.error_error / self.delta_delta) ** 0.5 if self.delta_delta else None


def merge_pair(f: BufferedReader, entry: Entry, pair: Pair, change: Change) -> Iterator[memoryview]:
    """The merged tensor's bytes, in order; `change` is filled on the way."""
    a, b = pair.load()
    for first, last in blocks(entry):
        old = read_rows(f, entry, first, last)
        wide = old.astype(np.float32)
        delta = np.float32(pair.scale) * (b[first:last] @ a)
        yield _cast(entry, wide, delta, wide + delta, change)


def replace_value(f: BufferedReader, entry: Entry, value: Value, change: Change) -> Iterator[memoryview]:
    """A fully trained tensor's bytes in the base's type; `change` is measured against the base."""
    new = checked(value)
    old = read_array(f, entry).astype(np.float32)
    yield _cast(entry, old, new - old, new, change)


def new_value(value: Value, dtype: str) -> memoryview:
    """A trained tensor's bytes where the base holds none."""
    return raw(checked(value).astype(FLOATS[dtype]))


def checked(value: Value) -> np.ndarray:
    array = value.load().astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError("the trained tensor holds NaN or infinity", where=value.name, fix="convert an earlier step")
    return array


def _cast(entry: Entry, old: np.ndarray, delta: np.ndarray, new: np.ndarray, change: Change) -> memoryview:
    with np.errstate(over="ignore"):
        cast = new.astype(FLOATS[entry.dtype])
    moved = cast.astype(np.float32) - old
    change.add(delta, moved)
    if not np.isfinite(change.error_error):
        raise UserError(
            f"the merged tensor is not finite in {entry.dtype}", where=entry.name, fix="check the base and the adapter"
        )
    return raw(cast)


def raw(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
