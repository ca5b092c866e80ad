"""What becomes of every tensor of a checkpoint: read by a row, carried through, missing, or not accounted for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from common.errors import UserError
from models.families import carried
from models.leaf import Leaf
from models.quant.layout import SCALE, Mode, mode_of, stored_shapes
from models.spec import DecoderSpec

Kind = Literal["used", "carried through", "missing", "unexpected"]


@dataclass(frozen=True)
class Wanted:
    """A tensor that a row reads: the row's path, and the shape that config.json says."""

    row: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Coverage:
    tensor: str
    kind: Kind
    row: str | None = None
    """The path of the row that reads it."""


def wanted(table: Iterable[Leaf], stored: Mode | None) -> dict[str, Wanted]:
    """Every tensor that `table` reads from a folder whose weights are in full, or quantized as `stored`."""
    out = {}
    for leaf in table:
        own = None if stored is None else mode_of(leaf, stored)
        for name in leaf.hf_names:
            if own is None:
                out[name] = Wanted(leaf.path, leaf.hf_shape)
            else:
                codes, scale = stored_shapes(leaf, own)
                out |= {name: Wanted(leaf.path, codes), name + SCALE: Wanted(leaf.path, scale)}
    return out


def coverage(spec: DecoderSpec, wants: Mapping[str, Wanted], names: Iterable[str]) -> list[Coverage]:
    """One for every tensor that rows want or the checkpoint (`names`) holds; the rows' come first."""
    held = set(names)
    out = [Coverage(name, "used" if name in held else "missing", want.row) for name, want in wants.items()]
    for name in sorted(held - set(wants)):
        out.append(Coverage(name, "carried through" if carried(spec, name) else "unexpected"))
    return out


def check_complete(found: Iterable[Coverage]) -> None:
    """Raises UserError naming what is missing, or what nothing accounts for."""
    found = list(found)
    for kind, what, fix in (
        ("missing", "tensors are missing from the checkpoint", "fetch the model again, all of its files"),
        ("unexpected", "tensors that config.json does not account for", "the weights and config.json belong together?"),
    ):
        names = [fate.tensor for fate in found if fate.kind == kind]
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise UserError(f"{len(names)} {what}", where=", ".join(names[:5]) + more, fix=fix)
