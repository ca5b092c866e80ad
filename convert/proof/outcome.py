"""What a run of both models says, and whether there is one; nothing here needs JAX, as most conversions do not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import read_json
from convert.adapters.adapter import Site
from convert.config import ConvertConfig
from convert.prepare import Work

DATASET = "dataset.json"
AUTO_PARAMETERS = 50_000_000
"""Larger models are run only when `verify: on` asks: three copies in float32, and minutes on a CPU."""
MAX_TOKENS = 128


@dataclass(frozen=True)
class Outcome:
    """`why_not`: the reason that nothing was run, else None."""

    why_not: str | None
    kl_mean: float | None = None
    kl_max: float | None = None
    tokens: int = 0
    prompts: int = 0
    effective: Mapping[Site, float] = field(default_factory=dict)
    """Root mean square of the change of the logits when one target of one layer alone is merged."""

    def summary(self) -> dict[str, Any]:
        return {
            "measured": self.why_not is None,
            "why_not": self.why_not,
            "kl_mean": self.kl_mean,
            "kl_max": self.kl_max,
            "tokens": self.tokens,
            "prompts": self.prompts,
        }


def why_not(config: ConvertConfig, probes: str | None, work: Work) -> str | None:
    """The reason to leave the models alone; None: run them. Raises UserError where `on` cannot be obeyed."""
    if config.verify == "off":
        return "convert.verify is off"
    if probes is None:
        reason = "no data artifact was given"
    elif not prompts_of(Path(probes)):
        reason = "the data artifact has no prompts"
    else:
        count = sum(int(np.prod(leaf.shape, dtype=np.int64)) for leaf in work.table)
        return (
            f"{count / 1e6:,.0f} million parameters: convert.verify: on runs them anyway"
            if config.verify == "auto" and count > AUTO_PARAMETERS
            else None
        )
    if config.verify == "on":
        raise UserError(
            f"nothing to verify with: {reason}", where="convert.verify", fix="give prompts, or write verify: auto"
        )
    return reason


def prompts_of(folder: Path) -> list[list[int]]:
    """Token ids of the data artifact's probes, cut to MAX_TOKENS. Raises UserError for a folder that is no data
    artifact."""
    try:
        rows = read_json(folder / DATASET).get("probes", [])
        return [row["ids"][:MAX_TOKENS] for row in rows if row["ids"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"not a data artifact ({error})", where=str(folder / DATASET), fix="run the data stage again"
        ) from error
