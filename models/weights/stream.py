"""Tensors of a checkpoint into device arrays, one at a time, each straight into its place in its stack.

Where devices read host memory (CPU) the arrays are filled where they will stay: device_put of an aligned buffer copies
nothing. Elsewhere stacks are made on the devices and updated in place (donated), a slot at a time. Beyond the arrays,
the host holds at most two tensors, or IN_FLIGHT bytes where that is more.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from models.leaf import Leaf, in_our_order
from models.weights.files import WeightFiles

WORKERS = 2
ALIGNMENT = 64
"""Bytes; XLA copies host buffers that are aligned to less."""
SMALL = 64 << 20
"""Stacks up to this size are made on the host and sent whole."""
IN_FLIGHT = 512 << 20

Read = tuple[str, tuple[int, ...]]
"""An HF tensor's name and its index over the stacking letters."""


@dataclass(frozen=True)
class Job:
    """Part of a row that is filled on the host and put on the devices at once: the whole row, or one slot of it."""

    leaf: Leaf
    shape: tuple[int, ...]
    sharding: Sharding
    reads: tuple[Read, ...]
    slot: tuple[int, ...] | None
    """Where in the stack it goes; None: it is the whole row."""


class Parts:
    """Host memory of an array, one buffer for every distinct part that the devices here hold."""

    def __init__(self, shape: tuple[int, ...], dtype: str, sharding: Sharding):
        self.shape, self.sharding = shape, sharding
        where = sharding.addressable_devices_indices_map(shape)
        self.of_device = {
            device: tuple(part.indices(size)[:2] for part, size in zip(index or (), shape, strict=True))
            for device, index in where.items()
        }
        self.buffers = {
            bounds: aligned(tuple(stop - start for start, stop in bounds), dtype)
            for bounds in set(self.of_device.values())
        }

    def fill(self, at: tuple[int | None, ...], tensor: np.ndarray) -> None:
        """Put `tensor` where the axes numbered in `at` have these indices; None marks the tensor's own axes."""
        for bounds, buffer in self.buffers.items():
            pairs = list(zip(at, bounds, strict=True))
            if all(i is None or start <= i < stop for i, (start, stop) in pairs):
                to = buffer[(*(slice(None) if i is None else i - start for i, (start, _) in pairs), ...)]
                to[...] = tensor[tuple(slice(*bound) for i, bound in pairs if i is None)]

    def straight(self, at: tuple[int | None, ...], dtype: np.dtype) -> np.ndarray | None:
        """The memory itself that `fill` would fill, where one piece of it takes the tensor's bytes as they are."""
        buffers = list(self.buffers.values())
        if len(buffers) > 1 or buffers[0].shape != self.shape or buffers[0].dtype != dtype:
            return None
        to = buffers[0][(*(slice(None) if i is None else i for i in at), ...)]
        return to if to.flags.c_contiguous else None

    def put(self) -> jax.Array:
        arrays = [jax.device_put(self.buffers[bounds], device) for device, bounds in self.of_device.items()]
        return jax.make_array_from_single_device_arrays(self.shape, self.sharding, arrays)


def aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = jnp.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(kind).reshape(shape)


def _fill(job: Job, parts: Parts, read: Read, checkpoint: WeightFiles) -> None:
    name, index = read
    at = dict(zip(job.leaf.stacked, index, strict=True)) if job.slot is None else {}
    letters = job.leaf.letters if job.slot is None else [x for x in job.leaf.letters if x not in job.leaf.stacked]
    index = tuple(at.get(x) for x in letters)
    to = parts.straight(index, checkpoint.dtype(name)) if job.leaf.in_hf_order else None
    if to is not None and checkpoint.entry(name).shape == job.leaf.hf_shape:
        checkpoint.read(name, finite=True, into=to)
    else:
        parts.fill(index, in_our_order(job.leaf, name, checkpoint.read(name, finite=True)))


def _made(job: Job, dtype: str, checkpoint: WeightFiles) -> Parts:
    parts = Parts(job.shape, dtype, job.sharding)
    for read in job.reads:
        _fill(job, parts, read, checkpoint)
    return parts


def _jobs(leaf: Leaf, sharding: Sharding, whole: bool) -> Iterator[Job]:
    if whole:
        yield Job(leaf, leaf.shape, sharding, tuple(leaf.index()), None)
        return
    own = [i for i, x in enumerate(leaf.letters) if x not in leaf.stacked]
    own_sharding = sharding
    if isinstance(sharding, NamedSharding):
        axes = (*sharding.spec, *[None] * len(leaf.shape))
        own_sharding = NamedSharding(sharding.mesh, PartitionSpec(*(axes[i] for i in own)))
    for read in leaf.index():
        yield Job(leaf, tuple(leaf.shape[i] for i in own), own_sharding, (read,), read[1])


def stream(
    table: list[Leaf],
    checkpoint: WeightFiles,
    dtype: str,
    shardings: Mapping[str, Sharding],
    on_host: bool,
    small: int = SMALL,
) -> dict[str, jax.Array]:
    """Arrays by path. Raises UserError naming the first bad tensor.

    `on_host`: the devices compute in host memory. Elsewhere stacks of up to `small` bytes are sent whole.
    """
    pool = ThreadPoolExecutor(WORKERS)
    try:
        if on_host:
            return _fill_in_place(pool, table, checkpoint, dtype, shardings)
        return _send_slots(pool, table, checkpoint, dtype, shardings, small)
    finally:
        pool.shutdown(cancel_futures=True)


def _fill_in_place(
    pool: ThreadPoolExecutor, table: list[Leaf], checkpoint: WeightFiles, dtype: str, shardings: Mapping[str, Sharding]
) -> dict[str, jax.Array]:
    waiting: list[tuple[str, Parts, list[Future[None]]]] = []
    for leaf in table:
        (job,) = _jobs(leaf, shardings[leaf.path], whole=True)
        parts = Parts(job.shape, dtype, job.sharding)
        waiting.append((leaf.path, parts, [pool.submit(_fill, job, parts, read, checkpoint) for read in job.reads]))
    out: dict[str, jax.Array] = {}
    for path, parts, reads in waiting:
        for read in reads:
            read.result()
        out[path] = parts.put()
    return out


def _send_slots(
    pool: ThreadPoolExecutor,
    table: list[Leaf],
    checkpoint: WeightFiles,
    dtype: str,
    shardings: Mapping[str, Sharding],
    small: int,
) -> dict[str, jax.Array]:
    out: dict[str, jax.Array] = {}
    flying: deque[tuple[Job, int, Future[Parts]]] = deque()

    def land() -> None:
        job, _, made = flying.popleft()
        value = made.result().put()
        if job.slot is not None:
            path = job.leaf.path
            if path not in out:
                out[path] = _zeros(job.leaf.shape, dtype, shardings[path])
            axes = tuple(job.leaf.letters.index(x) for x in job.leaf.stacked)
            value = _set(out[path], value, jnp.asarray(job.slot), axes)
        out[job.leaf.path] = value
        value.block_until_ready()

    for leaf in table:
        whole = not leaf.stacked or math.prod(leaf.shape) * jnp.dtype(dtype).itemsize <= small
        for job in _jobs(leaf, shardings[leaf.path], whole):
            # The tensor as read, and as it is sent.
            size = sum(checkpoint.entry(name).bytes for name, _ in job.reads) if job.slot is None else 0
            size = size or checkpoint.entry(job.reads[0][0]).bytes
            size += math.prod(job.shape) * jnp.dtype(dtype).itemsize
            while flying and sum(each for _, each, _ in flying) + size > IN_FLIGHT:
                land()
            flying.append((job, size, pool.submit(_made, job, dtype, checkpoint)))
    while flying:
        land()
    return out


def _zeros(shape: tuple[int, ...], dtype: str, sharding: Sharding) -> jax.Array:
    return jax.jit(partial(jnp.zeros, shape, dtype), out_shardings=sharding)()


@partial(jax.jit, static_argnums=3, donate_argnums=0)
def _set(stack: jax.Array, value: jax.Array, slot: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """`stack` with `value` at indices `slot` of its axes `axes`."""
    at = [slot[axes.index(i)] if i in axes else slice(None) for i in range(stack.ndim)]
    return stack.at[tuple(at)].set(value)
