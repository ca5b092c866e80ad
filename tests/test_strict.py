"""The session is strict: what would promote types or ranks by itself is an error, here and in child processes."""

import os
import warnings
from contextlib import nullcontext

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


@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning])
@pytest.mark.parametrize(
    "module", ["common.files", "tests.test_strict", "tapeout", "dataclasses", "jax.numpy", "training"]
)
def test_what_is_deprecated_is_an_error_in_our_own_code_alone(category: type[Warning], module: str) -> None:
    ours = module in ("common.files", "tests.test_strict", "tapeout")
    with pytest.raises(category) if ours else nullcontext():
        warnings.warn_explicit("old", category, "a.py", 1, module)
