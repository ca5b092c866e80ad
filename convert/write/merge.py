"""The merge itself: W + scale * B @ A in float32, rounded once to the base's type, in place, a piece at a time.

A piece is read, changed block by block in buffers that stay in a core's cache, and handed on: the weight's bytes are
never copied a second time, and memory does not depend on the size of a tensor.
"""

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from common.errors import UserError
from convert.adapters.adapter import Pair, Value
from convert.write.headers import FLOATS
from convert.write.plan import Part

BLOCK = 1 << 18
"""Float32 elements in work at a time: 1 MiB, so that the dozen passes over them stay in a core's second cache."""

Update = Callable[[int, int, np.ndarray, np.ndarray, np.ndarray], None]
"""(first row, last row, old, delta, new): fill `delta` and `new` (float32, [rows, width]) for these rows."""


@dataclass
class Change:
    """Sums over the elements of one or more tensors: `delta` is the update before the cast, `moved` = W' - W after."""

    delta_delta: float = 0.0
    moved_delta: float = 0.0
    error_error: float = 0.0
    most: float = 0.0

    def include(self, other: "Change") -> None:
        self.delta_delta += other.delta_delta
        self.moved_delta += other.moved_delta
        self.error_error += other.error_error
        self.most = max(self.most, other.most)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def kept(self) -> float | None:
        """Share of the delta's norm, along the delta, that survived the cast; None: there is no delta."""
        return self.moved_delta / self.delta_delta if self.delta_delta else None

    @property
    def error(self) -> float | None:
        """Norm of what the cast changed, as a share of the delta's norm."""
        return (self.error_error / self.delta_delta) ** 0.5 if self.delta_delta else None


_buffers = threading.local()


def _work(shape: tuple[int, int], dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Four arrays of this thread: old, delta and new in float32, and `cast` in the base's type."""
    size = shape[0] * shape[1]
    if getattr(_buffers, "size", 0) < size:
        _buffers.size = size
        _buffers.floats = [np.empty(size, np.float32) for _ in range(3)]
        _buffers.cast = np.empty(size, np.float64)
    arrays = [*_buffers.floats, _buffers.cast.view(dtype)]
    return tuple(array[:size].reshape(shape) for array in arrays)


def change_rows(part: Part, first: int, piece: np.ndarray, update: Update) -> Change:
    """Apply `update` to the rows from `first` on, whose bytes are `piece`, in place."""
    change = Change()
    dtype = FLOATS[part.dtype]
    rows = piece.view(dtype).reshape(-1, part.width)
    step = max(1, BLOCK // max(1, part.width))
    for at in range(0, len(rows), step):
        block = rows[at : at + step]
        old, delta, new, cast = _work(block.shape, dtype)
        np.copyto(old, block, casting="unsafe")
        update(first + at, first + at + len(block), old, delta, new)
        _cast(part.name, block, old, delta, new, cast, change)
    return change


def _cast(name: str, block: np.ndarray, old: Any, delta: Any, new: Any, cast: Any, change: Change) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(cast, new, casting="unsafe")
        np.copyto(block, cast)
        np.copyto(new, cast, casting="unsafe")
        moved = np.subtract(new, old, out=new).ravel()
        flat = delta.ravel()
        change.most = max(change.most, float(moved.max(initial=0.0)), -float(moved.min(initial=0.0)))
        change.delta_delta += float(np.dot(flat, flat))
        change.moved_delta += float(np.dot(moved, flat))
        lost = np.subtract(moved, flat, out=moved)
        change.error_error += float(np.dot(lost, lost))
    if not np.isfinite(change.error_error):
        raise UserError(
            f"the merged tensor is not finite in {block.dtype}", where=name, fix="check the base and the adapter"
        )


def pair_update(pair: Pair) -> Update:
    a, b = pair.load()
    scale = np.float32(pair.scale)

    def update(first: int, last: int, old: np.ndarray, delta: np.ndarray, new: np.ndarray) -> None:
        np.matmul(b[first:last], a, out=delta)
        if scale != 1:
            np.multiply(delta, scale, out=delta)
        np.add(old, delta, out=new)

    return update


def value_update(value: Value) -> Update:
    new = checked(value)
    rows = new.reshape(len(new) if new.ndim else 1, -1)

    def update(first: int, last: int, old: np.ndarray, delta: np.ndarray, new: np.ndarray) -> None:
        np.copyto(new, rows[first:last])
        np.subtract(new, old, out=delta)

    return update


def checked(value: Value) -> np.ndarray:
    """The tensor's array as trained. Raises UserError for NaN or infinity in it."""
    array = value.load().astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError("the trained tensor holds NaN or infinity", where=value.name, fix="convert an earlier step")
    return array


def raw(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
