"""How far the head's loss and gradients are from those of whole logits; as a process of eight devices, on meshes."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from models.mesh import batch_sharding, laid_out
from train.head import Form, Table, cross_entropy

ROWS, WIDTH, VOCAB = (8, 20), 16, 96


def case() -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [b t d], table [v d], targets [b t]."""
    keys = jax.random.split(jax.random.key(0), 3)
    targets = jax.random.randint(keys[2], ROWS, 0, VOCAB)
    return jax.random.normal(keys[0], (*ROWS, WIDTH)), jax.random.normal(keys[1], (VOCAB, WIDTH)), targets


def apart(form: Form, supervised: np.ndarray) -> dict[str, float]:
    """The largest difference of loss, gradient of x and of the table, as shares of the largest value."""
    x, table, targets = case()
    mask = jnp.asarray(supervised)

    def whole(x: jax.Array, table: jax.Array) -> jax.Array:
        logits = jnp.einsum("btd,vd->btv", x, table)
        capped = logits if form.cap is None else form.cap * jnp.tanh(logits / form.cap)
        return 0.25 * jnp.sum(
            optax.softmax_cross_entropy_with_integer_labels(capped, targets) * mask.astype(jnp.float32)
        )

    def ours(x: jax.Array, table: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
        return 0.25 * cross_entropy(form, x, Table(table), targets, mask)

    want = jax.value_and_grad(whole, (0, 1))(x, table)
    args: tuple[Any, ...] = x, table, targets, mask
    if form.mesh is not None:
        rows, over = batch_sharding(form.mesh), NamedSharding(form.mesh, PartitionSpec("tp", "fsdp"))
        args = tuple(jax.device_put(a, place) for a, place in zip(args, (rows, over, rows, rows), strict=True))
    got = jax.jit(jax.value_and_grad(ours, (0, 1)))(*args)
    pairs = zip(("loss", "x", "table"), jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return {name: float(np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b))) for name, a, b in pairs}


if __name__ == "__main__":
    assert jax.device_count() == 8
    half = np.random.default_rng(3).random(ROWS) < 0.5
    half[0] = False  # a device without a supervised position
    shapes = [(1, 8, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8)]
    meshes = {str(shape): laid_out(shape, jax.devices()) for shape in shapes}
    print(json.dumps({name: apart(Form(mesh, 8, None), half) for name, mesh in meshes.items()}))
