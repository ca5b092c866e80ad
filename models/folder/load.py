"""A model folder to a decoder: every row is filled from the checkpoint, every tensor is used or the load stops."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from common.errors import UserError
from models.config import AttentionName
from models.decoder import Decoder
from models.families import rows
from models.folder.coverage import check_complete, coverage, wanted
from models.folder.opened import ModelFolder, opened
from models.leaf import Leaf
from models.mesh import weight_sharding
from models.quant.layout import Mode, mode_of, mode_to_load
from models.quant.quantize import load_quantized
from models.quant.weight import Quantized
from models.spec import DecoderSpec
from models.weights.stream import stream

INIT_STD = 0.02


def load_params(
    folder: str | ModelFolder, dtype: str, stacked: bool, mesh: Mesh | None = None, weights: Mode | None = None
) -> tuple[DecoderSpec, dict[str, jax.Array | Quantized]]:
    """Parameters by path, on `mesh` or on the default device, read one tensor at a time; `weights`: quantized so.

    Raises UserError naming a missing, unexpected, misshapen or non-finite tensor.
    """
    model = opened(folder)
    spec, checkpoint = model.spec, model.weights
    table = rows(spec, stacked)
    mode, stored = mode_to_load(model.stored, weights)
    if stored and stacked:
        what = f"training starts from full weights, these are {mode}"
        raise UserError(what, where=str(model.path), fix=f"give the full weights; train.weights: {mode} quantizes them")
    check_complete(coverage(spec, wanted(table, mode if stored else None), checkpoint.names()))
    device = jax.devices()[0]
    shardings: dict[str, Sharding] = {
        leaf.path: SingleDeviceSharding(device) if mesh is None else weight_sharding(mesh, leaf) for leaf in table
    }
    full = [leaf for leaf in table if mode is None or mode_of(leaf, mode) is None]
    params: dict[str, jax.Array | Quantized] = {
        **stream(full, checkpoint, dtype, shardings, on_host=device.platform == "cpu")
    }
    if mode is not None:

        def where(leaf: Leaf, shape: tuple[int, ...]) -> Sharding:
            return SingleDeviceSharding(device) if mesh is None else weight_sharding(mesh, leaf, shape)

        params |= load_quantized(table, checkpoint, mode, stored, dtype, where)
    return spec, params


def load_decoder(
    folder: str | ModelFolder,
    dtype: str,
    stacked: bool,
    mesh: Mesh | None = None,
    weights: Mode | None = None,
    attention: AttentionName = "auto",
) -> Decoder:
    """The decoder of a model folder, on `mesh` or on the default device; its weights in full or quantized."""
    spec, params = load_params(folder, dtype, stacked, mesh, weights)
    return Decoder(spec, params, stacked, mesh=mesh, attention=attention)


def random_decoder(spec: DecoderSpec, dtype: str, seed: int, mesh: Mesh, attention: AttentionName = "auto") -> Decoder:
    """A stacked decoder with random weights, all of them to be trained."""
    table = rows(spec, stacked=True)
    values = random_params(spec, dtype, seed)
    placed = {leaf.path: jax.device_put(values[leaf.path], weight_sharding(mesh, leaf)) for leaf in table}
    return Decoder(spec, placed, stacked=True, mesh=mesh, trained=nnx.Param, attention=attention)


def random_params(spec: DecoderSpec, dtype: str, seed: int) -> dict[str, jax.Array]:
    """Random weights: normal with deviation 0.02, norms and scalars one; each row has a key of its own.

    Query norms start where scores have the scale head_dim ** -1, of which attention applies `scale`: at one, scores of
    random queries and keys have a deviation of 8 at head_dim 64, and attention is stuck on single tokens.
    """
    key = jax.random.key(seed)

    def fill(i: int, leaf: Leaf) -> jax.Array:
        if len(leaf.groups) > 1:
            return (INIT_STD * jax.random.normal(jax.random.fold_in(key, i), leaf.shape)).astype(dtype)
        one = 1.0
        if leaf.target == "q_norm":
            one = leaf.size["h"] ** -0.5 / spec.of_kind(leaf.path.split(".")[0]).scale
        return jnp.full(leaf.shape, one - (spec.norm_offset if leaf.target.endswith("norm") else 0.0), dtype)

    return {leaf.path: fill(i, leaf) for i, leaf in enumerate(rows(spec, stacked=True))}
