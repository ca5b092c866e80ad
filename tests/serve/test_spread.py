"""How keys and values are spread over tp: what one device holds of them (no devices here, only their places)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh

from models.mesh import AXES
from serve.engine.spread import spread


@dataclass(frozen=True)
class Place:
    """What JAX asks of a device to lay arrays out."""

    id: int
    platform: str = "tpu"
    process_index: int = 0


def mesh_of(tp: int) -> Mesh:
    devices: Any = np.asarray([Place(i) for i in range(tp)], object).reshape(1, 1, tp)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@pytest.mark.parametrize(
    ("tp", "kv_heads", "slots", "layout", "held"),
    [
        (8, 16, 32, (8, 1, 1), (32, 2, 64, 100)),
        (8, 4, 32, (4, 2, 1), (16, 1, 64, 100)),
        (8, 1, 32, (1, 8, 1), (4, 1, 64, 100)),
        (8, 4, 3, (4, 1, 2), (3, 1, 64, 100)),
        (4, 6, 10, (2, 2, 1), (5, 3, 64, 100)),
        (1, 4, 5, (1, 1, 1), (5, 4, 64, 100)),
    ],
)
def test_heads_first_then_rows(
    tp: int, kv_heads: int, slots: int, layout: tuple[int, ...], held: tuple[int, ...]
) -> None:
    over = spread(mesh_of(tp), kv_heads, slots)
    assert over is not None and tuple(over.mesh.shape.values()) == layout
    assert over.place("bkhs").shard_shape((slots, kv_heads, 64, 100)) == held


def test_one_device_has_all() -> None:
    assert spread(None, 4, 32) is None


@given(st.integers(1, 16), st.integers(1, 64), st.integers(1, 64))
def test_every_device_holds_its_share_and_no_other_order(tp: int, kv_heads: int, slots: int) -> None:
    """Devices stand in the order of the queries' heads, so that what they are given is what they have."""
    over = spread(mesh_of(tp), kv_heads, slots)
    assert over is not None
    assert [each.id for each in over.mesh.devices.flat] == list(range(tp))
    heads, rows, rest = over.mesh.shape.values()
    assert heads * rows * rest == tp and kv_heads % heads == 0 and slots % rows == 0
