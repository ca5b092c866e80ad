"""What an hour of a slice costs."""

import math
from dataclasses import dataclass
from importlib.resources import files

import yaml

from common.errors import UserError
from common.machine.chips import Slice


@dataclass(frozen=True)
class Price:
    """US dollars an hour of the whole slice, and where that is from."""

    usd: float
    source: str

    def of(self, seconds: float) -> float:
        return self.usd * seconds / 3600


def check_price(usd: float) -> None:
    """Raises UserError for an hour that costs nothing, or without end."""
    if not 0 < usd < math.inf:
        raise UserError("an hour costs more than nothing", where="--price", fix="write dollars, or leave it out")


def price_of(slice_: Slice, given: float | None) -> Price:
    """`given` of an hour, else as published. Raises UserError for a price that is none."""
    if given is not None:
        check_price(given)
        return Price(given, "as given")
    found = yaml.safe_load(files("pipeline.plan").joinpath("prices.yaml").read_text(encoding="utf-8"))[slice_.kind]
    return Price(found["usd"] * slice_.chips, f"{found['source']}, {found['region']}, {found['date']}")
