"""A process of eight virtual devices: logits under every mesh, and where each parameter lies (JSON).

The second folder's model has sizes that eight does not divide: it runs with `replicate: all`. The first runs with
quantized weights, too.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from models.config import HardwareConfig
from models.decoder import Decoder
from models.families import read_spec, rows
from models.folder.load import load_decoder, load_params
from models.mesh import make_mesh, weight_sharding
from models.quant.layout import Mode
from models.quant.weight import Quantized

MESHES = ((1, 8), (2, 4), (4, 2), (8, 1))


def compare(
    folder: str, meshes: Iterable[tuple[int, int]], replicate: Literal["kv", "all"], weights: Mode | None = None
) -> dict[str, Any]:
    tokens = jnp.asarray(np.random.default_rng(0).integers(3, 500, (8, 12)))
    positions = jnp.broadcast_to(jnp.arange(12), tokens.shape)
    segments = jnp.ones(tokens.shape, jnp.int32)
    spec = read_spec(folder)
    want = load_decoder(folder, "float32", True, weights=weights)(tokens, positions, segments)
    apart, placed = {}, {}
    for fsdp, tp in meshes:
        mesh = make_mesh(HardwareConfig(mesh={"fsdp": fsdp, "tp": tp}, replicate=replicate), spec)
        _, params = load_params(folder, "float32", True, mesh, weights)
        full: dict[str, Any] = {path: value for path, value in params.items() if not isinstance(value, Quantized)}
        for leaf in rows(spec, True):
            if leaf.path in full:
                assert full[leaf.path].sharding == weight_sharding(mesh, leaf), leaf.path
        placed[f"{fsdp},{tp}"] = {path: list(value.sharding.spec) for path, value in full.items()}
        spread = [v.codes.sharding for v in params.values() if isinstance(v, Quantized)]
        assert not any(place.is_fully_replicated for place in spread)
        got = Decoder(spec, params, True, mesh=mesh)(tokens, positions, segments)
        apart[f"{fsdp},{tp}"] = float(np.abs(np.asarray(got) - np.asarray(want)).max())
    return {"apart": apart, "placed": placed, "scale": float(jnp.abs(want).max())}


def gradients(folder: str) -> dict[str, float]:
    """Of all weights, under a mesh that puts each layer's together for its use, against one device's."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(3, 500, (4, 8)))
    positions, segments = jnp.broadcast_to(jnp.arange(8), tokens.shape), jnp.ones(tokens.shape, jnp.int32)
    spec = read_spec(folder)

    def of(mesh: Mesh | None) -> tuple[list[jax.Array], list[Any]]:
        _, params = load_params(folder, "float32", True, mesh, None)
        decoder = Decoder(spec, params, True, mesh=mesh, trained=nnx.Param)
        graph, trained, frozen = nnx.split(decoder, nnx.Param, ...)

        def loss(trained: nnx.State) -> jax.Array:
            out = nnx.merge(graph, trained, frozen)(tokens, positions, segments, "outputs")
            return jnp.mean(jax.nn.logsumexp(out, axis=-1))

        grads = jax.tree.leaves(jax.jit(jax.grad(loss))(trained))
        return grads, [w.sharding for w in jax.tree.leaves(trained)]

    want, _ = of(None)
    got, places = of(make_mesh(HardwareConfig(mesh={"fsdp": 4, "tp": 2}, replicate="kv"), spec))
    apart = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(want, got, strict=True))
    lie = sum(g.sharding.is_equivalent_to(place, g.ndim) for g, place in zip(got, places, strict=True) if g.ndim > 2)
    largest = max(float(jnp.abs(grad).max()) for grad in want)
    return {"apart": apart, "scale": largest, "as weights": lie, "wide": sum(g.ndim > 2 for g in got)}


if __name__ == "__main__":
    assert jax.device_count() == 8
    even, odd = sys.argv[1:]
    found = {"even": compare(even, MESHES, "kv"), "odd": compare(odd, [(1, 8)], "all")}
    found["gradients"] = gradients(even)
    print(json.dumps(found | {mode: compare(even, [(2, 4)], "kv", mode) for mode in ("int8", "int4")}))
