"""PEFT's adapter layout, read: what models/adapters/peft.py finds, as pairs to merge."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from convert.adapters.adapter import Adapter, Pair, Site
from models.adapters.peft import module_of, read_peft_adapter
from models.leaf import Leaf, from_hf


def read_peft(folder: Path, sites: Mapping[str, Site]) -> Adapter:
    """`sites`: the base's adaptable tensors. Raises UserError for what is missing or not supported."""
    found = read_peft_adapter(folder, sites)
    pairs = {
        name: Pair(name, sites.get(name, Site(module_of(name), None)), pair.rank, pair.scale, pair.load)
        for name, pair in found.pairs.items()
    }
    return Adapter(
        "lora",
        "peft",
        found.digest,
        rank=found.rank,
        alpha=found.alpha,
        pairs=pairs,
        updated=partial(_updated, pairs),
        chosen_layers=found.chosen_layers,
    )


def _updated(pairs: Mapping[str, Pair], leaf: Leaf, base: np.ndarray) -> np.ndarray:
    def delta(name: str) -> np.ndarray:
        if name not in pairs:
            return np.zeros(leaf.hf_shape, np.float32)
        a, b = pairs[name].load()
        return (b @ a) * np.float32(pairs[name].scale)

    return base + from_hf(leaf, delta) if any(name in pairs for name in leaf.hf_names) else base
