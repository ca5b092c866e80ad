"""The session is strict: what would promote types or ranks by itself is an error, here and in child processes."""

import os

import jax
import jax.numpy as jnp
import pytest

from tests.conftest import STRICT


def test_ranks_are_not_promoted() -> None:
    with pytest.raises(ValueError, match="rank_promotion"):
        _ = jnp.ones((2, 3)) * jnp.ones(3)


def test_types_are_not_promoted() -> None:
    with pytest.raises(jax.dtypes.TypePromotionError):
        _ = jnp.ones(3, jnp.bfloat16) + jnp.ones(3, jnp.float32)


def test_child_processes_inherit_it() -> None:
    assert STRICT.items() <= os.environ.items()
