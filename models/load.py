"""A model folder to a decoder: every row is filled from the checkpoint, every tensor is used or the load stops."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from common.errors import UserError
from models.checkpoint import Checkpoint
from models.decoder import Decoder
from models.families import read_spec, rows
from models.leaf import Leaf, from_hf
from models.mesh import weight_place
from models.spec import DecoderSpec

INIT_STD = 0.02
IGNORED = ("lm_head.weight",)
"""Tied to the embedding; some writers store it all the same."""


def load_params(folder: str, dtype: str, stacked: bool) -> tuple[DecoderSpec, dict[str, np.ndarray]]:
    """Parameters by path. Raises UserError naming a missing, unexpected, misshapen or non-finite tensor."""
    spec = read_spec(folder)
    table = rows(spec, stacked)
    checkpoint = Checkpoint(folder)
    used = {name for leaf in table for name in leaf.hf_names}
    unexpected = sorted(set(checkpoint.names()) - used - set(IGNORED))
    if unexpected:
        raise UserError(
            f"{len(unexpected)} tensors that config.json does not account for", where=", ".join(unexpected[:5])
        )
    return spec, {leaf.path: _filled(leaf, checkpoint, dtype) for leaf in table}


def _filled(leaf: Leaf, checkpoint: Checkpoint, dtype: str) -> np.ndarray:
    def read(name: str) -> np.ndarray:
        tensor = checkpoint.read(name).astype(dtype)
        if not np.isfinite(tensor.astype(np.float32)).all():
            raise UserError("the weights hold NaN or infinity", where=name, fix="download or write them again")
        return tensor

    return from_hf(leaf, read)


def load_decoder(folder: str, dtype: str, stacked: bool, mesh: Mesh | None = None) -> Decoder:
    """The decoder of a model folder, on `mesh` or on the default device."""
    spec, params = load_params(folder, dtype, stacked)
    if mesh is None:
        return Decoder(spec, {path: jnp.asarray(value) for path, value in params.items()}, stacked)
    places = {leaf.path: weight_place(mesh, leaf) for leaf in rows(spec, stacked)}
    return Decoder(spec, {path: jax.device_put(value, places[path]) for path, value in params.items()}, stacked)


def random_decoder(spec: DecoderSpec, dtype: str, seed: int, mesh: Mesh) -> Decoder:
    """A stacked decoder with random weights, all of them to be trained."""
    table = rows(spec, stacked=True)
    values = random_params(spec, dtype, seed)
    placed = {leaf.path: jax.device_put(values[leaf.path], weight_place(mesh, leaf)) for leaf in table}
    return Decoder(spec, placed, stacked=True, trained=nnx.Param)


def random_params(spec: DecoderSpec, dtype: str, seed: int) -> dict[str, jax.Array]:
    """Random weights: normal with deviation 0.02, norms and scalars one; each row has a key of its own.

    Query norms start at head_dim ** -0.5, the scale that attention here leaves to them: at one, scores of random
    queries and keys have a deviation of 8 at head_dim 64, and attention is stuck on single tokens from the start.
    """
    key = jax.random.key(seed)

    def fill(i: int, leaf: Leaf) -> jax.Array:
        if leaf.is_product or leaf.path == "embed":
            return (INIT_STD * jax.random.normal(jax.random.fold_in(key, i), leaf.shape)).astype(dtype)
        scale = leaf.size["h"] ** -0.5 if leaf.target == "q_norm" else 1.0
        return jnp.full(leaf.shape, scale, dtype)

    return {leaf.path: fill(i, leaf) for i, leaf in enumerate(rows(spec, stacked=True))}
