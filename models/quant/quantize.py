"""Full weights to quantized ones, and quantized ones from files: int8 per output channel, int4 and nf4 in groups.

Tensor by tensor and block by block: beyond the codes, one full tensor and one block of it exist at a time. In a file,
the codes have the tensor's own name and the scales that name with "_scale" (docs/quantization.md).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import qwix
from jax.sharding import Sharding

from common.errors import UserError
from models.leaf import Leaf, in_our_order
from models.quant.layout import SCALE, Mode, group_of, mode_of, one_scale, shapes, stored_shapes
from models.quant.weight import Quantized
from models.weights.files import WeightFiles
from models.weights.stream import aligned

BLOCK_BYTES = 32 << 20
"""Float32 bytes quantized at once."""


def quantized_blocks(
    leaf: Leaf, mode: Mode, name: str, tensor: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Codes and scales of one HF tensor of the row, block by block along the first of its axes, in our axes."""
    ours = in_our_order(leaf, name, tensor)
    letters = [x for x in leaf.letters if x not in leaf.stacked]
    group = 0 if mode == "int8" else group_of(leaf)
    own = tuple(i for i, x in enumerate(letters) if x not in one_scale(leaf)) if mode == "int8" else ()
    step = max(1, BLOCK_BYTES // (4 * max(1, math.prod(ours.shape[1:]))))
    for start in range(0, len(ours), step):
        part = slice(start, min(start + step, len(ours)))
        codes, scale = _quantize(jnp.asarray(ours[part], jnp.float32), mode, own, group)
        yield part, np.asarray(codes), np.asarray(scale)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _quantize(block: jax.Array, mode: Mode, own: tuple[int, ...], group: int) -> tuple[jax.Array, jax.Array]:
    last = block.ndim - 1
    if mode == "int8":
        q = qwix.quantize(block, jnp.int8, channelwise_axes=own)
        return q.qvalue, q.scale
    kind = jnp.int4 if mode == "int4" else "nf4"
    q = qwix.quantize(block, kind, channelwise_axes=range(last), tiled_axes={last: group})
    codes = jnp.bitwise_and(q.qvalue.astype(jnp.int8), 15).astype(jnp.uint8)
    low, high = jnp.split(codes.reshape(*block.shape[:-1], -1, group), 2, axis=-1)
    packed = jnp.bitwise_or(low, jnp.left_shift(high, 4))
    return packed.reshape(*block.shape[:-1], -1), q.scale


def load_quantized(
    table: Iterable[Leaf],
    checkpoint: WeightFiles,
    mode: Mode,
    stored: bool,
    dtype: str,
    sharding: Callable[[Leaf, tuple[int, ...]], Sharding],
) -> dict[str, Quantized]:
    """The rows of `table` that `mode` quantizes, from full weights or from codes and scales as `stored`.

    Raises UserError naming the first bad tensor.
    """
    out = {}
    for leaf in table:
        if (own := mode_of(leaf, mode)) is not None:
            codes, scale = _filled(leaf, checkpoint, own, stored)
            codes, scale = (jax.device_put(array, sharding(leaf, array.shape)) for array in (codes, scale))
            out[leaf.path] = Quantized(codes, scale, own, dtype)
    return out


def _filled(leaf: Leaf, checkpoint: WeightFiles, mode: Mode, stored: bool) -> tuple[np.ndarray, np.ndarray]:
    codes_shape, scale_shape = shapes(leaf, mode)
    codes, scale = aligned(codes_shape, "int8" if mode == "int8" else "uint8"), aligned(scale_shape, "float32")
    for name, index in leaf.index():
        at = dict(zip(leaf.stacked, index, strict=True))
        slot = tuple(at.get(x, slice(None)) for x in leaf.letters)
        if stored:
            for array, part, finite, shape in zip(
                (codes, scale), (name, name + SCALE), (False, True), stored_shapes(leaf, mode), strict=True
            ):
                _read(checkpoint, part, finite, shape, array[slot])
            continue
        for part, some_codes, some_scale in quantized_blocks(leaf, mode, name, checkpoint.read(name, finite=True)):
            codes[slot][part], scale[slot][part] = some_codes, some_scale
    return codes, scale


def _read(checkpoint: WeightFiles, name: str, finite: bool, shape: tuple[int, ...], to: np.ndarray) -> None:
    entry, dtype = checkpoint.entry(name), checkpoint.dtype(name, finite)
    if (entry.shape, dtype) != (shape, to.dtype):
        raise UserError(
            f"the file has {entry.dtype} {list(entry.shape)}, the configuration says {to.dtype} {list(shape)}",
            where=name,
            fix="export the model again",
        )
    to[...] = checkpoint.read(name, finite).reshape(to.shape)
