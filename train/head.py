"""Cross-entropy through the vocabulary for supervised positions alone, its gradient formed while the logits are there.

Positions that count are brought together and taken in chunks, as many as there are: shapes do not depend on what a
batch holds. A chunk's logits, which outweigh everything else in a step, are computed once: the backward pass finds the
gradient of the hidden states ready, and that of the table where it is trained.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

LOGITS_BYTES = 256 << 20
"""Of float32 logits that a device may hold at once."""
MOST_ROWS = {"cpu": 128}
"""Positions in a chunk from which products run at the machine's rate; more would only round their number up."""
ROWS = ("data", "fsdp")


class Form(NamedTuple):
    """What the program depends on besides its arrays."""

    mesh: Mesh | None
    chunk: int
    """Positions of a device taken at once."""
    cap: float | None
    """Logits are cap * tanh(z / cap)."""


class Table(NamedTuple):
    """Weights [v d]; of an int8 table its codes, and scales [v]."""

    weights: jax.Array
    scale: jax.Array | None = None


class Sums(NamedTuple):
    """Of a batch, or of some chunks of it: the loss and its gradients in float32, None where they are not asked for."""

    loss: jax.Array
    x: jax.Array | None
    table: jax.Array | None


def chunk_of(mesh: Mesh | None, platform: str, vocab: int, limit: int = LOGITS_BYTES) -> int:
    """Positions whose logits take no more than `limit` on a device."""
    across = mesh.shape["tp"] if mesh is not None and vocab % mesh.shape["tp"] == 0 else 1
    most = max(1, min(MOST_ROWS.get(platform, 512), limit * across // (4 * vocab)))
    return most if most < 8 else most // 8 * 8


def cross_entropy(form: Form, x: jax.Array, table: Table, targets: jax.Array, supervised: jax.Array) -> jax.Array:
    """Sum over the supervised positions of the cross-entropy of `targets`, float32.

    x [b t d] in the table's type; targets, supervised [b t].
    """
    ways = 1 if form.mesh is None else form.mesh.shape["data"] * form.mesh.shape["fsdp"]
    x, targets, supervised = (
        _placed(form.mesh, a.reshape(ways, -1, *a.shape[2:]), ROWS) for a in (x, targets, supervised)
    )
    # Put together from its shards once, and not for every chunk.
    across = "tp" if form.mesh is not None and table.weights.shape[0] % form.mesh.shape["tp"] == 0 else None
    table = jax.tree.map(lambda a: _placed(form.mesh, a, across), table)
    return _cross_entropy(form, x, table, targets, supervised)


def _placed(mesh: Mesh | None, a: jax.Array, first: Any) -> jax.Array:
    return a if mesh is None else jax.lax.with_sharding_constraint(a, NamedSharding(mesh, PartitionSpec(first)))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(form: Form, x: jax.Array, table: Table, targets: jax.Array, supervised: jax.Array) -> jax.Array:
    return _sums(form, x, table, targets, supervised, (False, False)).loss


def _forward(form: Form, x: Any, table: Any, targets: Any, supervised: Any) -> tuple[jax.Array, Sums]:
    wanted = x.perturbed, table.weights.perturbed
    plain = Table(table.weights.value, None if table.scale is None else table.scale.value)
    sums = _sums(form, x.value, plain, targets.value, supervised.value, wanted)
    return sums.loss, sums


def _backward(form: Form, sums: Sums, ct: jax.Array) -> tuple[Any, ...]:
    x, table = (None if a is None else (ct * a.astype(jnp.float32)).astype(a.dtype) for a in (sums.x, sums.table))
    return x, None if table is None else Table(table), None, None


_cross_entropy.defvjp(_forward, _backward, symbolic_zeros=True)


def _sums(
    form: Form, x: jax.Array, table: Table, targets: jax.Array, supervised: jax.Array, wanted: tuple[bool, bool]
) -> Sums:
    """x [g n d], targets and supervised [g n], of g groups that lie apart; `wanted`: gradients of x, of the table."""
    n, width = x.shape[1:]
    chunk = min(form.chunk, n)
    # The supervised first, in the order of the row.
    order = jnp.argsort(~supervised, axis=1, stable=True)
    counts = jnp.sum(supervised, axis=1)
    rows, labels = (_filled_up(_along(a, order), chunk) for a in (x, targets))

    def add(i: jax.Array, sums: Sums) -> Sums:
        at = i * chunk
        some, some_labels = (jax.lax.dynamic_slice_in_dim(a, at, chunk, axis=1) for a in (rows, labels))
        flat = some.reshape(-1, width)  # as matrices: CPUs rearrange operands of three axes at every product
        counted = at + jnp.arange(chunk)[None] < counts[:, None]
        loss, slope = _loss(form.cap, flat, table, some_labels.reshape(-1), counted.reshape(-1))
        dx, dtable = sums.x, sums.table
        if dx is not None:
            # Kept in float32: CPUs convert a whole buffer of bfloat16 to write a part of it.
            part = _product("iv,vd->id", slope(), table.weights).reshape(some.shape)
            dx = jax.lax.dynamic_update_slice_in_dim(dx, part, at, axis=1)
        if dtable is not None:
            dtable += _product("iv,id->vd", slope(), flat)
        return Sums(sums.loss + loss, dx, dtable)

    dx = _placed(form.mesh, jnp.zeros(rows.shape, jnp.float32), ROWS) if wanted[0] else None
    dtable = jnp.zeros(table.weights.shape, jnp.float32) if wanted[1] else None
    sums = jax.lax.fori_loop(0, -(-jnp.max(counts) // chunk), add, Sums(jnp.float32(0.0), dx, dtable))
    if sums.x is not None:
        back = _along(sums.x, jnp.argsort(order, axis=1))
        dx = jnp.where(supervised[:, :, None], back, 0.0).astype(x.dtype)
    return Sums(sums.loss, dx, None if sums.table is None else sums.table.astype(table.weights.dtype))


def _along(a: jax.Array, order: jax.Array) -> jax.Array:
    return jnp.take_along_axis(a, order.reshape(*order.shape, *(1 for _ in a.shape[2:])), axis=1)


def _filled_up(a: jax.Array, chunk: int) -> jax.Array:
    return jnp.pad(a, ((0, 0), (0, -a.shape[1] % chunk), *((0, 0) for _ in a.shape[2:])))


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _loss(
    cap: float | None, x: jax.Array, table: Table, labels: jax.Array, counted: jax.Array
) -> tuple[jax.Array, Callable[[], jax.Array]]:
    """The loss summed over the rows of x [i d] that are `counted` [i]; and its gradient [i v] of their products with
    the table's weights, in the type of x."""
    logits = _product("id,vd->iv", x, table.weights)
    if table.scale is not None:
        logits *= table.scale[None]
    if cap is not None:
        logits = cap * jnp.tanh(logits / cap)
    top = jnp.max(logits, axis=-1, keepdims=True)
    lse = top + jnp.log(jnp.sum(jnp.exp(logits - top), axis=-1, keepdims=True))
    at_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)

    def slope() -> jax.Array:
        hit = jnp.arange(logits.shape[-1])[None] == labels[:, None]
        out = jnp.exp(logits - lse) - hit.astype(jnp.float32)
        if cap is not None:
            out *= 1 - jnp.square(logits / cap)
        if table.scale is not None:
            out *= table.scale[None]
        return jnp.where(counted[:, None], out, 0.0).astype(x.dtype)

    return jnp.sum(jnp.where(counted[:, None], lse - at_label, 0.0)), slope
