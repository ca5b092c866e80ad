"""A stage's plan: what its slice has, what its programs need there, how long they take and what that costs."""

from dataclasses import asdict, dataclass
from typing import Any

from common.machine.chips import Slice
from pipeline.plan.prices import Price

GIB = 2**30
FREE = 0.08
"""Share of a chip's memory that a plan keeps free: what the compiler counts is not all that a process takes."""


@dataclass(frozen=True)
class Stage:
    """Bytes and rates are those of one chip."""

    name: str
    slice: Slice
    price: Price
    sizes: dict[str, Any]
    """Of `models.folder.sizes`: the mesh with the weights' bytes, or what refuses it."""
    figures: dict[str, Any] | None
    """Of the compiler; None where it was not asked."""

    @property
    def refused(self) -> dict[str, Any] | None:
        return self.sizes.get("refused")

    @property
    def room(self) -> float:
        """Bytes that may be used."""
        return self.slice.chip.memory * GIB * (1 - FREE)

    @property
    def needed(self) -> float:
        """Bytes, by the compiler; of weights alone where it was not asked."""
        if self.figures is None:
            return self.sizes["weights"]
        return max(each["memory"] for each in self.figures.values() if isinstance(each, dict))

    @property
    def fits(self) -> bool:
        return self.refused is None and self.needed <= self.room

    def seconds(self, program: str) -> float:
        """Of one run, as if nothing ran beside the sending between chips."""
        figures = self.figures or {}
        return figures[program]["compute"] + figures[program]["links"]

    def as_json(self) -> dict[str, Any]:
        about = {"slice": self.slice.name, "chips": self.slice.chips, "usd_per_hour": self.price.usd}
        found = {**about, "price": asdict(self.price), **self.sizes, "programs": self.figures, "fits": self.fits}
        return found if self.refused else found | {"needed": self.needed, "room": self.room}
