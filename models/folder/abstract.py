"""A decoder of shapes: what a planner, a compiler or a test lowers, without any weights."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from models.config import AttentionName
from models.decoder import Decoder
from models.families import rows
from models.leaf import Leaf
from models.mesh import weight_sharding
from models.quant.layout import Mode, mode_of, shapes
from models.quant.weight import Quantized
from models.spec import DecoderSpec


def abstract_decoder(
    spec: DecoderSpec,
    dtype: str,
    stacked: bool,
    mesh: Mesh | None = None,
    weights: Mode | None = None,
    attention: AttentionName = "auto",
    trained: type = nnx.LoRAParam,
) -> Decoder:
    """`load_decoder`'s decoder with shapes in place of arrays, each with the sharding that loading gives it."""

    def shape(leaf: Leaf, sizes: tuple[int, ...], kind: Any) -> Any:
        sharding = SingleDeviceSharding(jax.devices()[0]) if mesh is None else weight_sharding(mesh, leaf, sizes)
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(kind), sharding=sharding)

    def weight(leaf: Leaf) -> Any:
        mode = None if weights is None else mode_of(leaf, weights)
        if mode is None:
            return shape(leaf, leaf.shape, dtype)
        codes, scale = shapes(leaf, mode)
        return Quantized(
            shape(leaf, codes, "int8" if mode == "int8" else "uint8"), shape(leaf, scale, "float32"), mode, dtype
        )

    values = {leaf.path: weight(leaf) for leaf in rows(spec, stacked)}
    return Decoder(spec, values, stacked, mesh=mesh, trained=trained, attention=attention)
