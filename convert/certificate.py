"""certificate.json: what the conversion can prove, per target and layer.

`trained` is the update's norm in float32, `exported` that it is in the PEFT adapter, `merged` what of it is in the
written weights after the cast. Whether the model's output moves takes running it, and is not claimed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from convert.adapter import Adapter, Place
from convert.merge import Change

VERSION = 1
NAME = "certificate.json"


@dataclass
class Ledger:
    """What happened to every tensor that the adapter touches."""

    places: dict[str, Place] = field(default_factory=dict)
    norms: dict[str, float | None] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)

    def enter(self, name: str, place: Place, norm: float | None, change: Change | None) -> None:
        self.places[name], self.norms[name] = place, norm
        if change is not None:
            self.changes[name] = change

    def kept(self) -> list[float]:
        shares = [change.kept for change in self.changes.values()]
        return [share for share in shares if share is not None]


def certificate(
    adapter: Adapter,
    ledger: Ledger,
    places: Mapping[str, Place],
    exported: bool,
    base_digest: str | None,
    files: Mapping[str, str],
    left_out: list[str],
) -> dict[str, Any]:
    """`places`: every tensor of the base that an adapter could touch; `files`: sha256 by name."""
    groups: dict[Place, list[str]] = {}
    for name, place in ledger.places.items():
        groups.setdefault(place, []).append(name)
    order = sorted(groups, key=lambda place: (place.target, -1 if place.layer is None else place.layer))
    return {
        "version": VERSION,
        "method": adapter.method,
        "source": adapter.source,
        "step": adapter.step,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "base_digest": base_digest,
        "targets": [_group(place, sorted(groups[place]), ledger, exported) for place in order],
        "missing": _missing(ledger, places),
        "files": dict(files),
        "left_out": left_out,
    }


def _group(place: Place, names: list[str], ledger: Ledger, exported: bool) -> dict[str, Any]:
    norms = [ledger.norms[name] for name in names]
    changes = [ledger.changes[name] for name in names if name in ledger.changes]
    total = Change()
    for change in changes:
        total.include(change)
    known = [norm for norm in norms if norm is not None]
    return {
        "target": place.target,
        "layer": place.layer,
        "tensors": names,
        "trained": sum(norm**2 for norm in known) ** 0.5 if known else None,
        "exported": exported,
        "merged": {"max_change": total.most, "kept": total.kept, "error": total.error} if changes else None,
        "flags": ["untrained"] if known and min(known) == 0.0 else [],
    }


def _missing(ledger: Ledger, places: Mapping[str, Place]) -> list[dict[str, Any]]:
    """Layers that have a target which the adapter trains elsewhere, and were left out."""
    targets = {place.target for place in ledger.places.values()}
    absent = sorted(name for name, place in places.items() if place.target in targets and name not in ledger.places)
    return [{"target": places[name].target, "layer": places[name].layer, "tensor": name} for name in absent]
