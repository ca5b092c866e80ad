"""How keys and values lie on the devices of tp: heads over as many as these divide, rows of the cache over the rest.

Eight devices and four key-value heads are four pairs: each holds a head, and each device of a pair half the rows. Held
whole on every device, the cache of such layers outweighs the weights. What neither divides is held whole.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("heads", "rows", "rest")
PLACES = {"k": "heads", "b": "rows"}


@dataclass(frozen=True)
class Spread:
    """The devices of tp in the order of the queries' heads, laid out as key-value heads x rows x what is left."""

    mesh: Mesh

    @property
    def rows(self) -> int:
        """Groups of rows."""
        return self.mesh.shape["rows"]

    @property
    def copies(self) -> int:
        """Devices that hold the same."""
        return self.mesh.shape["rest"]

    def spec(self, letters: str) -> PartitionSpec:
        """Where an array with these axes lies: `k` over heads, `b` over rows."""
        return PartitionSpec(*(PLACES.get(letter) for letter in letters))

    def place(self, letters: str) -> NamedSharding:
        return NamedSharding(self.mesh, self.spec(letters))

    def each(self, function: Callable[..., Any], given: tuple[Any, ...], made: Any) -> Callable[..., Any]:
        """`function` on each device over its own heads and rows; `given` and `made`: axes of operands and results."""

        def specs(axes: Any) -> Any:
            return jax.tree.map(self.spec, axes)

        return jax.shard_map(function, mesh=self.mesh, in_specs=specs(given), out_specs=specs(made), check_vma=False)


def spread(mesh: Mesh | None, kv_heads: int, rows: int) -> Spread | None:
    """For layers with so many key-value heads and a cache of so many rows; None: one device."""
    if mesh is None:
        return None
    tp = mesh.shape["tp"]
    heads = math.gcd(kv_heads, tp)
    groups = math.gcd(rows, tp // heads)
    shape = (heads, groups, tp // heads // groups)
    return Spread(Mesh(np.asarray(mesh.devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES)))


def own_row(over: Spread | None, row: jax.Array, count: int) -> tuple[jax.Array, jax.Array | None]:
    """On a device with `count` of the rows: the row's number there, and whether it has it; None: it has all."""
    if over is None or over.rows == 1:
        return row, None
    row = row - jax.lax.axis_index("rows") * count
    return jnp.clip(row, 0, count - 1), (row >= 0) & (row < count)
