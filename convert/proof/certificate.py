"""certificate.json: what the conversion can prove, per target and layer.

`trained` is the update's norm in float32, `exported` that it is in the PEFT adapter, `merged` what of it is in the
written weights after the cast, `effective` how far the model's output moved by it alone. The last, and `kl`, take
running the model: they are there where that was done, and `verified` says why where it was not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from convert.adapters.adapter import Site
from convert.prepare import Work
from convert.proof.outcome import Outcome
from convert.write.merge import Change

VERSION = 2


@dataclass
class Ledger:
    """What happened to every tensor that the adapter touches."""

    sites: dict[str, Site] = field(default_factory=dict)
    norms: dict[str, float | None] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)

    def enter(self, name: str, site: Site, norm: float | None, change: Change | None) -> None:
        self.sites[name], self.norms[name] = site, norm
        if change is not None:
            self.changes[name] = change

    def kept(self) -> list[float]:
        shares = [self.changes[name].kept for name in sorted(self.changes)]
        return [share for share in shares if share is not None]


def ledger_of(work: Work, changes: Mapping[str, Change]) -> Ledger:
    ledger = Ledger()
    for touched in (*work.adapter.pairs.values(), *work.adapter.values.values()):
        change = changes.get(touched.name)
        norm = work.norms.get(touched.name, None if change is None else change.delta_delta**0.5)
        ledger.enter(touched.name, touched.site, norm, change)
    for name, site in work.adapter.untrained.items():
        ledger.enter(name, site, 0.0, None)
    return ledger


def certificate(work: Work, ledger: Ledger, outcome: Outcome, files: Mapping[str, str]) -> dict[str, Any]:
    """`files`: sha256 by name."""
    adapter = work.adapter
    groups: dict[Site, list[str]] = {}
    for name, site in ledger.sites.items():
        groups.setdefault(site, []).append(name)
    order = sorted(groups, key=lambda site: (site.target, -1 if site.layer is None else site.layer))
    return {
        "version": VERSION,
        "method": adapter.method,
        "source": adapter.source,
        "step": adapter.step,
        "checkpoints": None if adapter.weights is None else {str(s): w for s, w in adapter.weights.items()},
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "base_digest": work.base_digest,
        "adapter_digest": adapter.digest,
        "verified": outcome.summary(),
        "targets": [_group(site, sorted(groups[site]), ledger, work.exported, outcome) for site in order],
        "missing": [
            {"target": work.where[name].target, "layer": work.where[name].layer, "tensor": name}
            for name in work.missing
        ],
        "untrained": [
            {"target": site.target, "layer": site.layer, "tensor": name}
            for name, site in sorted(adapter.untrained.items())
        ],
        "files": dict(files),
        "left_out": work.left_out,
    }


def _group(site: Site, names: list[str], ledger: Ledger, exported: bool, outcome: Outcome) -> dict[str, Any]:
    norms = [ledger.norms[name] for name in names]
    changes = [ledger.changes[name] for name in names if name in ledger.changes]
    total = Change()
    for change in changes:
        total.include(change)
    known = [norm for norm in norms if norm is not None]
    moved = outcome.effective.get(site)
    flags = ["untrained"] if known and min(known) == 0.0 else []
    if changes and any(known) and total.most == 0.0:
        flags.append("lost in the cast")
    elif moved == 0.0:
        flags.append("no effect")
    return {
        "target": site.target,
        "layer": site.layer,
        "tensors": names,
        "trained": sum(norm**2 for norm in known) ** 0.5 if known else None,
        "exported": exported,
        "merged": {"max_change": total.most, "kept": total.kept, "error": total.error} if changes else None,
        "effective": moved,
        "flags": flags,
    }
