"""PEFT's adapter layout, read: what models/adapters/peft.py finds, as pairs to merge."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.safetensors import Weights
from convert.adapters.adapter import Adapter, Pair, Site
from models.adapters.names import module_of
from models.adapters.peft import is_zero, read_peft_adapter
from models.leaf import Leaf, from_hf
from models.spec import DecoderSpec
from models.text.day import noted_day

HEAD = "lm_head.weight"


def read_peft(folder: Path, spec: DecoderSpec, table: list[Leaf], sites: Mapping[str, Site], base: Weights) -> Adapter:
    """`table`: the rows of `spec`; `sites`: the base's adaptable tensors. Raises UserError for what is missing or not
    supported.

    Updates that are zero (of a vision tower that the rows never reached, of keys that a layer borrows) are no pairs to
    merge: they are kept by name, whether the base has the tensor or not.
    """
    found = read_peft_adapter(folder, {*sites, *base.where})
    moving = {name: pair for name, pair in found.pairs.items() if not is_zero(pair, name)}
    if not moving:
        raise UserError("the adapter was never trained: all its updates are zero", where=str(folder), fix="train it")
    _refuse_tables(moving, spec, table)

    def site(name: str) -> Site:
        return sites.get(name, Site(module_of(name), None))

    pairs = {name: Pair(name, site(name), pair.rank, pair.scale, pair.load) for name, pair in moving.items()}
    return Adapter(
        "lora",
        "peft",
        found.digest,
        rank=found.rank,
        alpha=found.alpha,
        pairs=pairs,
        updated=partial(_updated, pairs),
        chosen_layers=found.chosen_layers,
        untrained={name: site(name) for name in found.pairs if name not in moving},
        date=noted_day(folder),
        keys=(found.shard, found.renamed),
    )


def _refuse_tables(moving: Collection[str], spec: DecoderSpec, table: list[Leaf]) -> None:
    """A head is merged where it is a tensor of its own; PEFT has pairs of other names for what is looked up."""
    if spec.tied and (heads := [name for name in moving if name.endswith(HEAD)]):
        what = "the model's head is its table of embeddings (tie_word_embeddings), and the adapter changes one of them"
        fix = "train without lm_head; or untie them in the base first: tie_word_embeddings false, a head of its own"
        raise UserError(what, where=heads[0], fix=fix)
    looked_up = [name for leaf in table if leaf.use.tokens for name in leaf.hf_names if name != HEAD]
    if found := [name for name in looked_up if name in moving]:
        what = "this is a table that tokens are looked up in: PEFT has no lora_A and lora_B for one"
        raise UserError(what, where=found[0], fix="save the adapter again, with PEFT")


def _updated(pairs: Mapping[str, Pair], leaf: Leaf, base: np.ndarray) -> np.ndarray:
    def delta(name: str) -> np.ndarray:
        if name not in pairs:
            return np.zeros(leaf.hf_shape, np.float32)
        a, b = pairs[name].load()
        return (b @ a) * np.float32(pairs[name].scale)

    return base + from_hf(leaf, delta) if any(name in pairs for name in leaf.hf_names) else base
