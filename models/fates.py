"""What becomes of every tensor of a checkpoint: read by a row, carried through, missing, or not accounted for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from common.errors import UserError
from models.families import carried
from models.leaf import Leaf
from models.spec import DecoderSpec

Kind = Literal["used", "carried through", "missing", "unexpected"]


@dataclass(frozen=True)
class Fate:
    tensor: str
    kind: Kind
    row: str | None = None
    """The path of the row that reads it."""


def fates(spec: DecoderSpec, table: Iterable[Leaf], names: Iterable[str]) -> list[Fate]:
    """One for every tensor that `table` names or the checkpoint (`names`) holds; the table's come first."""
    row = {name: leaf.path for leaf in table for name in leaf.hf_names}
    held = set(names)
    out = [Fate(name, "used" if name in held else "missing", path) for name, path in row.items()]
    for name in sorted(held - set(row)):
        out.append(Fate(name, "carried through" if carried(spec, name) else "unexpected"))
    return out


def check_complete(all_fates: Iterable[Fate]) -> None:
    """Raises UserError naming what is missing, or what nothing accounts for."""
    found = list(all_fates)
    for kind, what, fix in (
        ("missing", "tensors are missing from the checkpoint", "fetch the model again, all of its files"),
        ("unexpected", "tensors that config.json does not account for", "the weights and config.json belong together?"),
    ):
        names = [fate.tensor for fate in found if fate.kind == kind]
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise UserError(f"{len(names)} {what}", where=", ".join(names[:5]) + more, fix=fix)
