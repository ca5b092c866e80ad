"""The head against the plain cross-entropy of all positions: loss and gradients, on one device and on every mesh."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.head_child import ROWS, apart, case
from train.head import LOGITS_BYTES, Form, Table, chunk_of, cross_entropy

REPO = Path(__file__).parents[2]
HALF = np.random.default_rng(3).random(ROWS) < 0.5
LAST_TURN = np.arange(ROWS[1])[None] >= np.full(ROWS[0], ROWS[1] - 3)[:, None]


EVERY = np.ones(ROWS, bool)


@pytest.mark.parametrize(
    ("supervised", "chunk", "cap"),
    [(HALF, 8, None), (HALF, 24, 1.5), (LAST_TURN, 8, 1.5), (LAST_TURN, 512, None), (EVERY, 24, None)],
)
def test_loss_and_gradients_are_those_of_all_logits(supervised: np.ndarray, chunk: int, cap: float | None) -> None:
    found = apart(Form(None, chunk, cap), supervised)
    assert max(found.values()) < 1e-6


def test_a_mask_of_the_last_turn_has_a_gradient_there_alone() -> None:
    x, table, targets = case()
    grad = jax.grad(lambda x: cross_entropy(Form(None, 8, None), x, Table(table), targets, jnp.asarray(LAST_TURN)))(x)
    norms = np.linalg.norm(grad, axis=-1)
    assert norms[LAST_TURN].min() > 0.1 and norms[~LAST_TURN].max() == 0


def test_no_supervised_position_is_a_loss_and_gradients_of_zero() -> None:
    x, table, targets = case()

    def loss(x: jax.Array, table: jax.Array) -> jax.Array:
        return cross_entropy(Form(None, 8, None), x, Table(table), targets, jnp.zeros(ROWS, bool))

    value, grads = jax.value_and_grad(loss, (0, 1))(x, table)
    assert float(value) == 0 and not any(np.any(grad) for grad in grads)


def test_int8_tables_have_their_scales_in_the_gradient() -> None:
    x, table, targets = case()
    scale = jnp.max(jnp.abs(table), axis=1) / 127
    codes = jnp.round(table / scale[:, None])

    def ours(x: jax.Array) -> jax.Array:
        return cross_entropy(Form(None, 8, 2.0), x, Table(codes, scale), targets, jnp.asarray(HALF))

    def wide(x: jax.Array) -> jax.Array:
        return cross_entropy(Form(None, 8, 2.0), x, Table(codes * scale[:, None]), targets, jnp.asarray(HALF))

    (a, da), (b, db) = jax.value_and_grad(ours)(x), jax.value_and_grad(wide)(x)
    assert float(a) == pytest.approx(float(b), rel=1e-6)
    np.testing.assert_allclose(da, db, atol=1e-6)


def test_the_gradient_in_bfloat16_is_as_near_as_one_of_whole_logits() -> None:
    x, table, targets = (a.astype(jnp.bfloat16) if a.dtype == jnp.float32 else a for a in case())
    mask = jnp.asarray(HALF)

    def ours(x: jax.Array, table: jax.Array) -> jax.Array:
        return cross_entropy(Form(None, 24, None), x, Table(table), targets, mask)

    def whole(x: jax.Array, table: jax.Array) -> jax.Array:
        logits = jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * mask.astype(jnp.float32))

    wide = tuple(a.astype(jnp.float32) for a in (x, table))
    exact = jax.grad(whole, (0, 1))(*wide)
    for mine, theirs, right in zip(
        jax.grad(ours, (0, 1))(x, table), jax.grad(whole, (0, 1))(x, table), exact, strict=True
    ):
        errors = [float(jnp.linalg.norm(a.astype(jnp.float32) - right)) for a in (mine, theirs)]
        assert errors[0] < 1.5 * errors[1] < 0.01 * float(jnp.linalg.norm(right))


def test_a_frozen_table_has_no_gradient_in_the_program() -> None:
    x, table, targets = case()

    def loss(x: jax.Array, table: jax.Array) -> jax.Array:
        return cross_entropy(Form(None, 8, None), x, Table(table), targets, jnp.asarray(HALF))

    def products(which: int | tuple[int, ...]) -> int:
        return str(jax.make_jaxpr(jax.grad(loss, which))(x, table)).count("dot_general")

    assert (products(0), products((0, 1))) == (2, 3)


def test_chunks_keep_to_the_limit() -> None:
    assert chunk_of(None, "tpu", 262_144) == 256 and chunk_of(None, "tpu", 8192) == 512
    assert chunk_of(None, "cpu", 262_144) == 128 and chunk_of(None, "cpu", 1 << 27) == 1
    assert 4 * 262_144 * chunk_of(None, "tpu", 262_144) == LOGITS_BYTES


def test_every_mesh_gives_the_same() -> None:
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "tests.train.head_child"]
    found = json.loads(subprocess.run(command, cwd=REPO, env=env, stdout=subprocess.PIPE, check=True).stdout)
    assert len(found) == 4 and max(max(each.values()) for each in found.values()) < 1e-6
