"""The keys of an adapter's file: which module and half each one is, and which tensor of the base a module's weight is.

PEFT writes `base_model.model.MODULE.lora_A.weight`; a state dict saved by hand has the adapter's name in it
(`lora_A.default.weight`) or lacks the prefix. MODULE goes by the model that was trained: the text part of a multimodal
model has other names there than the same model loaded alone.
"""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError

PREFIX = "base_model.model."
WEIGHT = ".weight"
A, B = ".lora_A.weight", ".lora_B.weight"
TEXT = ("language_model.model.", "model.language_model.", "model.")
"""Starts of the text part's names: in older checkpoints, in transformers' multimodal modules, of text models; the
longer before what it starts with."""
_KEY = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.([^.]+))?\.weight")
_WITHOUT = "train without it"
_NO_LAYERS = "save it again with save_embedding_layers=False, if these are the base's own as they were"
_OTHER = {
    "lora_embedding_": ("LoRA on a table of embeddings is not supported", _WITHOUT),
    "lora_magnitude_vector": ("DoRA is not supported", _WITHOUT),
    "base_layer.": ("this is a layer of the base, saved beside its pair", _NO_LAYERS),
    "modules_to_save": ("whole modules saved beside the pairs are not supported", _WITHOUT),
    "trainable_tokens_": ("rows of a table of embeddings are not supported", _WITHOUT),
    ".bias": ("biases are not supported", _WITHOUT),
    "embed_tokens.weight": ("this is a table of the base, saved beside the pairs", _NO_LAYERS),
    "lm_head.weight": ("this is the base's head, saved beside the pairs", _NO_LAYERS),
}
"""What else an adapter's file can hold, and what to do."""


@dataclass(frozen=True)
class Halves:
    """The keys of one pair in the file."""

    a: str
    b: str


def pairs_of(keys: Iterable[str], path: Path) -> dict[str, Halves]:
    """The pairs of a file by module. Raises UserError naming the first key that is no half of one."""
    halves: dict[str, dict[str, str]] = {}
    adapters: set[str] = set()
    for key in sorted(keys):
        if (found := _KEY.fullmatch(key)) is None:
            unknown = "this is not half of a LoRA pair", "train without it; see PEFT's docs for what it is"
            what, fix = next((said for part, said in _OTHER.items() if part in key), unknown)
            raise UserError(what, where=f"{path}: {key}", fix=fix)
        module, half, adapter = found.groups()
        adapters.add(adapter or "")
        if len(adapters) > 1:
            named = " and ".join(repr(name) for name in sorted(adapters))
            raise UserError(f"two adapters are in one file: {named}", where=str(path), fix="save them one by one")
        if half in (own := halves.setdefault(module, {})):
            raise UserError(f"the same as {own[half]}", where=f"{path}: {key}", fix="keep one of the two")
        own[half] = key
    for own in halves.values():
        if len(own) == 1:
            key = next(iter(own.values()))
            what = "this is not half of a LoRA pair: the other half is not there"
            raise UserError(what, where=f"{path}: {key}", fix="save the adapter again")
    return {module: Halves(own["A"], own["B"]) for module, own in halves.items()}


def canonical(module: str) -> Halves:
    """The keys as PEFT writes them."""
    return Halves(PREFIX + module + A, PREFIX + module + B)


def tensor_of(module: str, known: Container[str]) -> str:
    """The base's name of the weight that PEFT knows by its module; the module's own where the base has none."""
    exact = module + WEIGHT
    if exact in known:
        return exact
    start = next((each for each in TEXT if module.startswith(each)), "")
    rest = module.removeprefix(start)
    return next((name for each in (*TEXT, "") if (name := each + rest + WEIGHT) in known), exact)


def module_of(tensor: str) -> str:
    """The module of transformers that has the base's weight `tensor`."""
    old, new, _ = TEXT
    module = tensor.removesuffix(WEIGHT)
    return new + module.removeprefix(old) if module.startswith(old) else module
