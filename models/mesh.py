"""Devices as a mesh, and axis letters to mesh axes: one rule for weights, adapters and optimizer state."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from common.errors import UserError
from common.machine.chips import Slice
from common.progress import log
from models.config import HardwareConfig
from models.leaf import Leaf, lora_axes
from models.spec import DecoderSpec

AXES = ("data", "fsdp", "tp")
PLACES = {"d": "fsdp", "v": "tp", "n": "tp", "k": "tp", "f": "tp"}
"""Which mesh axis shards which letter; letters not named are replicated."""


LIMITS = (("n", "num_attention_heads"), ("k", "num_key_value_heads"), ("f", "intermediate_size"))
"""What tp must divide in every layer, by its letter; the vocabulary, too."""


def make_mesh(hardware: HardwareConfig, spec: DecoderSpec | None = None, batch_size: int | None = None) -> Mesh:
    """A mesh over all devices, checked against the sizes of `spec` where it is given, before anything is loaded.

    `auto` shards weights and batch over all of them (fsdp), and what does not divide so over tp. Raises UserError for
    sizes that are not those of the devices or do not divide the model.
    """
    devices = jax.devices()
    sizes, why = mesh_sizes(hardware, len(devices), spec, batch_size)
    if why and len(devices) > 1:
        log(f"mesh: {_spelled(sizes)} ({why})")
    return laid_out([sizes.get(axis, 1) for axis in AXES], devices)


def mesh_sizes(
    hardware: HardwareConfig, devices: int, spec: DecoderSpec | None = None, batch_size: int | None = None
) -> tuple[dict[str, int], str]:
    """`make_mesh`'s sizes of so many devices, and why these where it was left to us. Raises UserError as it does."""
    if hardware.mesh == "auto":
        sizes, why = auto_mesh(devices, hardware.replicate, spec, batch_size)
    else:
        sizes, why = {str(axis): size for axis, size in hardware.mesh.items()}, ""
    if math.prod(sizes.values()) != devices:
        raise UserError(
            f"the mesh {_spelled(sizes)} has {math.prod(sizes.values())} places, but there are {devices} devices",
            where="hardware.mesh",
            fix="make the product equal, or write `mesh: auto`",
        )
    if spec is not None:
        check_tp(spec, sizes.get("tp", 1), hardware.replicate)
    return sizes, why


def laid_out(shape: Sequence[int], devices: list[Any]) -> Mesh:
    """Over the real topology, where neighbours on an axis are neighbours in the slice; as JAX lists them where the
    devices fill no box of it (three of four, several slices)."""
    if fill_a_box(devices):
        placed = create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        log("mesh: these devices fill no box of the slice, they stand as JAX lists them")
        placed = np.asarray(devices).reshape(shape)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def slice_devices(slice_: Slice) -> list[Any]:
    """The devices of a slice that is not here, for the compiler of libtpu (extra `aot`), in a process with the slice's
    environment. Raises UserError where libtpu is not installed."""
    # A slice of one chip is a part of a host, which libtpu has to be told.
    part = {"chips_per_host_bounds": [1, 1, 1]} if slice_.chips == 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=slice_.topology, **part).devices)
    except RuntimeError as error:
        what = f"the TPU compiler cannot be asked: {str(error).splitlines()[0]}"
        raise UserError(what, fix="install it beside tapeout: pip install libtpu") from error


def fill_a_box(devices: Sequence[Any]) -> bool:
    """Whether each place between the outermost coordinates is that of one device, as JAX's layout of a TPU slice
    asserts; other devices have no coordinates, and no layout to fail."""
    if devices[0].platform != "tpu":
        return True
    places = [(*device.coords, device.core_on_chip) for device in devices]
    box = math.prod(max(along) - min(along) + 1 for along in zip(*places, strict=True))
    return box == len(set(places)) == len(devices)


def serving_mesh(tp: int | Literal["auto"], replicate: str, spec: DecoderSpec) -> Mesh | None:
    """A mesh that spreads heads over the first `tp` devices, or as many as are valid; None: one device. Raises
    UserError for more than there are."""
    devices = jax.devices()
    tp, idle = serving_tp(tp, replicate, spec, len(devices))
    if idle:
        log(f"tp = {tp} is the most that this model's sizes allow: {idle} devices stay idle")
    return None if tp == 1 else laid_out([1, 1, tp], devices[:tp])


def serving_tp(tp: int | Literal["auto"], replicate: str, spec: DecoderSpec, devices: int) -> tuple[int, int]:
    """`serving_mesh`'s tp of so many devices, and how many stay idle though all were asked for. Raises UserError as it
    does."""
    asked = max(_valid(spec, replicate, devices)) if tp == "auto" else tp
    if asked > devices:
        what = f"tp = {asked}, but there are {devices} devices"
        raise UserError(what, where="serve.tp", fix=f"write at most {devices}, or auto")
    check_tp(spec, asked, replicate, "serve")
    return asked, devices - asked if tp == "auto" else 0


def _spelled(sizes: Mapping[str, int]) -> str:
    return " x ".join(f"{axis}={size}" for axis, size in sizes.items())


def undivided(spec: DecoderSpec, tp: int) -> list[tuple[str, str, int]]:
    """(letter, config.json's key, size) of what tp does not divide."""
    found: list[tuple[str, str, int]] = []
    for letter, key in LIMITS:
        for kind in spec.kinds:
            layer = spec.of_kind(kind)
            size = {"n": layer.heads, "k": layer.kv_heads, "f": layer.mlp_dim}[letter]
            other = letter == "k" and any(size != each.kv_heads for each in spec.layers if each.window is not None)
            named = "num_global_key_value_heads" if other and layer.window is None else key
            if size % tp and (letter, named, size) not in found:
                found.append((letter, named, size))
    return [*found, ("v", "vocab_size", spec.vocab)] if spec.vocab % tp else found


def _binding(spec: DecoderSpec, tp: int, replicate: str) -> list[tuple[str, str, int]]:
    """Of what tp does not divide, what may not be replicated."""
    allowed = {"none": "", "kv": "k", "all": "nkfv"}[replicate]
    return [limit for limit in undivided(spec, tp) if limit[0] not in allowed]


def check_tp(spec: DecoderSpec, tp: int, replicate: str, section: str = "hardware") -> None:
    """Raises UserError naming the sizes of `spec` that tp does not divide and that may not be replicated."""
    binding = _binding(spec, tp, replicate)
    if not binding:
        return
    _, key, size = next((limit for limit in binding if limit[0] != "k"), binding[0])
    only_kv = all(letter == "k" for letter, _, _ in binding)
    what = f"{key} = {size}: tp = {tp} " + (
        f"needs replication of {'global ' if 'global' in key else ''}KV heads" if only_kv else f"does not divide {size}"
    )
    fix = f"write {section}.replicate: {'kv' if only_kv else 'all'}, or choose tp from {_valid(spec, replicate)}"
    raise UserError(what, where="hardware.mesh.tp" if section == "hardware" else f"{section}.tp", fix=fix)


def _valid(spec: DecoderSpec, replicate: str, most: int = 1024) -> list[int]:
    """Every tp up to `most`, and to the number of heads."""
    heads = max(layer.heads for layer in spec.layers)
    return [tp for tp in range(1, min(heads, most) + 1) if not _binding(spec, tp, replicate)]


def auto_mesh(
    devices: int, replicate: str, spec: DecoderSpec | None, batch_size: int | None
) -> tuple[dict[str, int], str]:
    """Sizes of a mesh that is valid, and why these: as much fsdp as width and batch allow, the rest in tp. Raises
    UserError where there is none."""
    if spec is None:
        return {"fsdp": devices}, "weights and batch over all devices"
    for fsdp in (n for n in range(devices, 0, -1) if devices % n == 0):
        tp = devices // fsdp
        if spec.width % fsdp or (batch_size or fsdp) % fsdp or (tp > 1 and tp not in _valid(spec, replicate, devices)):
            continue
        divided = f"hidden_size {spec.width}" + (f" and a batch of {batch_size}" if batch_size else "")
        why = f"fsdp = {fsdp} is the most that divides {divided}"
        return {"fsdp": fsdp, "tp": tp}, f"{why}; the model's heads allow tp = {tp}" if tp > 1 else why
    raise UserError(
        f"no mesh of {devices} devices fits this model" + (f" and a batch of {batch_size}" if batch_size else ""),
        where="hardware.mesh: auto",
        fix=f"tp may be {_valid(spec, replicate)}; or use fewer devices, or hardware.replicate",
    )


def sharding_of(
    mesh: Mesh | AbstractMesh,
    letters: Sequence[str],
    shape: tuple[int, ...],
    own: Iterable[tuple[str, str | None]] = (),
) -> NamedSharding:
    """Sharding of an array with these axes, by the rule or its `own`; an axis that does not divide is replicated.

    Without tp, fsdp takes the outermost axis that it divides: parts of an inner one are put together by rewriting all.
    """
    rule = {**PLACES, **dict(own)}
    if mesh.shape["tp"] == 1:
        fits = (x for x, size in zip(letters, shape, strict=True) if rule.get(x) and size % mesh.shape["fsdp"] == 0)
        rule |= {x: "fsdp" for x in [next(fits, None)] if x}
    taken: set[str] = set()
    names: list[str | None] = []
    for letter, size in zip(letters, shape, strict=True):
        axis = rule.get(letter)
        fits = axis is not None and axis not in taken and size % mesh.shape[axis] == 0
        names.append(axis if fits else None)
        if fits and axis:
            taken.add(axis)
    return NamedSharding(mesh, PartitionSpec(*names))


def weight_sharding(mesh: Mesh | AbstractMesh, leaf: Leaf, shape: tuple[int, ...] | None = None) -> NamedSharding:
    """Sharding of a row's weight, or of an array of another shape (codes, scales) with its axes."""
    return sharding_of(mesh, leaf.letters, leaf.shape if shape is None else shape, leaf.use.sharding)


def lora_shardings(
    mesh: Mesh, leaf: Leaf, a: tuple[int, ...], b: tuple[int, ...]
) -> tuple[NamedSharding, NamedSharding]:
    a_axes, b_axes = lora_axes(leaf)
    return sharding_of(mesh, a_axes, a, leaf.use.sharding), sharding_of(mesh, b_axes, b, leaf.use.sharding)


def whole(mesh: Mesh | None, letters: str, w: jax.Array) -> jax.Array:
    """A weight with these axes put together from the devices of fsdp, where it is used. Left to itself XLA sums what
    each has of the contracted axis, and sends activations about. Its gradient comes back as the weight lies."""
    if mesh is None or mesh.shape["fsdp"] == 1:
        return w
    apart = sharding_of(mesh, letters, w.shape)
    spec = PartitionSpec(*(None if axis == "fsdp" else axis for axis in apart.spec))
    return _gathered(w, NamedSharding(mesh, spec), apart)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(w: jax.Array, together: NamedSharding, apart: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(w, together)


_gathered.defvjp(
    lambda w, together, apart: (jax.lax.with_sharding_constraint(w, together), None),
    lambda together, apart, _, gradient: (jax.lax.with_sharding_constraint(gradient, apart),),
)


def by_rows(mesh: Mesh | None, x: jax.Array) -> jax.Array:
    """Activations [b ...] spread as batches are, where the devices divide the rows."""
    if mesh is None or (ways := mesh.shape["data"] * mesh.shape["fsdp"]) == 1 or x.shape[0] % ways:
        return x
    return jax.lax.with_sharding_constraint(x, batch_sharding(mesh))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches [b t] are spread over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def check_batch(mesh: Mesh | AbstractMesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises UserError for a batch whose rows, or those of a micro batch, do not divide over the devices."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size // accumulate % ways:
        parts = f" in {accumulate} micro batches" if accumulate > 1 else ""
        raise UserError(
            f"batch_size {batch_size}{parts} does not divide over data x fsdp = {ways} devices",
            where="train.batch_size",
            fix=f"use a multiple of {ways * accumulate}",
        )
