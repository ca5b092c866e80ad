"""Devices as a mesh, and axis letters to mesh axes: one rule for weights, adapters and optimizer state."""

import math
from collections.abc import Iterable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from common.errors import UserError
from models.config import HardwareConfig
from models.leaf import Leaf, lora_axes

AXES = ("data", "fsdp", "tp")
PLACES = {"d": "fsdp", "v": "tp", "n": "tp", "k": "tp", "f": "tp"}
"""Which mesh axis shards which letter; letters not named are replicated."""


def make_mesh(hardware: HardwareConfig) -> Mesh:
    """A mesh over all devices. `auto` shards weights and batch over all of them (fsdp)."""
    devices = jax.devices()
    sizes = {"fsdp": len(devices)} if hardware.mesh == "auto" else dict(hardware.mesh)
    shape = [sizes.get(axis, 1) for axis in AXES]
    if math.prod(shape) != len(devices):
        asked = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UserError(
            f"the mesh {asked} has {math.prod(shape)} places, but there are {len(devices)} devices",
            where="hardware.mesh",
            fix="make the product equal, or write `mesh: auto`",
        )
    return Mesh(np.asarray(devices).reshape(shape), AXES)


def place(mesh: Mesh, letters: Iterable[str], shape: tuple[int, ...]) -> NamedSharding:
    """Sharding of an array with these axes; an axis that does not divide is replicated."""
    taken: set[str] = set()
    names: list[str | None] = []
    for letter, size in zip(letters, shape, strict=True):
        axis = PLACES.get(letter)
        fits = axis is not None and axis not in taken and size % mesh.shape[axis] == 0
        names.append(axis if fits else None)
        if fits and axis:
            taken.add(axis)
    return NamedSharding(mesh, PartitionSpec(*names))


def weight_place(mesh: Mesh, leaf: Leaf) -> NamedSharding:
    return place(mesh, leaf.letters, leaf.shape)


def lora_places(mesh: Mesh, leaf: Leaf, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[NamedSharding, NamedSharding]:
    a_axes, b_axes = lora_axes(leaf)
    return place(mesh, a_axes, a), place(mesh, b_axes, b)


def batch_place(mesh: Mesh) -> NamedSharding:
    """Batches [b t] are spread over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def check_batch(mesh: Mesh, batch_size: int) -> None:
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % ways:
        raise UserError(
            f"batch_size {batch_size} does not divide over data x fsdp = {ways} devices",
            where="train.batch_size",
            fix=f"use a multiple of {ways}",
        )
