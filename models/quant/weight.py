"""A quantized weight: codes and scales in place of an array, widened by qwix where it is used.

Codes and scales have the axes of the row they stand for. An int8 scale belongs to an output; the others to a group of
neighbours along the last axis, whose codes lie two in a byte: code j of a group in the low half of its byte j, code
j + half a group in the high half.
"""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp
import qwix
from flax import nnx

from models.quant.layout import PACKED, Mode


@flax.struct.dataclass
class Quantized:
    """A weight as codes (int8, or two to a byte: uint8) and scales [..., groups] (float32; groups 1 in int8)."""

    codes: jax.Array
    scale: jax.Array
    mode: Mode = flax.struct.field(pytree_node=False)
    dtype: str = flax.struct.field(pytree_node=False)
    """What it is computed in."""

    def matrix(self, inner: int) -> "Quantized":
        """The same as a matrix [out, inner]: leading axes joined, and the trailing ones that a product sums over."""
        codes = self.codes.reshape(-1, inner // PACKED[self.mode])
        return dataclasses.replace(self, codes=codes, scale=self.scale.reshape(codes.shape[0], -1))

    def wide(self) -> jax.Array:
        """The weight itself, in `dtype`."""
        return qwix.dequantize(_as_qarray(self)).astype(self.dtype)

    def __getitem__(self, index: jax.Array) -> "Quantized":
        """Rows of a table."""
        return dataclasses.replace(self, codes=self.codes[index], scale=self.scale[index])


nnx.register_data_type(Quantized)


def _as_qarray(q: Quantized) -> qwix.QArray:
    """qwix's form. int4 codes are held as int8: XLA's CPU holds them no tighter, and converts them slowly."""
    if q.mode == "int8":
        return qwix.QArray(q.codes, q.scale)
    groups, half = q.scale.shape[-1], q.codes.shape[-1] // q.scale.shape[-1]
    packed = q.codes.reshape(*q.codes.shape[:-1], groups, half)
    if q.mode == "int4":
        signed = jax.lax.bitcast_convert_type(packed, jnp.int8)
        halves = (jax.lax.shift_right_arithmetic(jnp.left_shift(signed, 4), jnp.int8(4)), jnp.right_shift(signed, 4))
    else:
        halves = (jnp.bitwise_and(packed, 15), jnp.right_shift(packed, 4))
    codes = jnp.concatenate(halves, axis=-1).reshape(*q.codes.shape[:-1], -1)
    return qwix.QArray(codes, q.scale, qtype="nf4" if q.mode == "nf4" else jnp.int8)


def product(x: jax.Array, w: Quantized, equation: str | None = None) -> jax.Array:
    """x [b t ...] with w [out ..., ...], summed over the axes of x after t -> [b t out ...] in float32.

    As a product of matrices; or as `equation` says, where inner axes lie on several devices.
    """
    inner = math.prod(x.shape[2:])
    rows, held = (x.reshape(-1, inner), w.matrix(inner)) if equation is None else (x, w)
    # int8 has a scale for each output: the product itself needs no more than the codes, which any float holds.
    codes = held.codes.astype(x.dtype) if w.mode == "int8" else held.wide().astype(x.dtype)
    out = jnp.einsum(equation or "id,od->io", rows, codes, preferred_element_type=jnp.float32)
    if w.mode == "int8":
        out *= held.scale[:, 0][None] if equation is None else held.scale.reshape(1, 1, *out.shape[2:])
    return out.reshape(*x.shape[:2], *w.codes.shape[: w.codes.ndim - (x.ndim - 2)])


def plain(w: jax.Array | Quantized) -> jax.Array:
    """A weight that may be quantized, as an array."""
    return w.wide() if isinstance(w, Quantized) else w
