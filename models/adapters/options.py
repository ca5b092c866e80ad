"""adapter_config.json: every option of PEFT's LoRA is honoured, is known to change nothing, or is refused by name.

An option that we do not know is refused whatever it says (null asks for nothing): what it would mean for the merge is
unknown. Neutral values are those of PEFT's LoraConfig (github.com/huggingface/peft, tuners/lora/config.py).
"""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from models.adapters.patterns import matched

CONFIG = "adapter_config.json"
CHOOSES = ("layers_to_transform", "layers_pattern", "exclude_modules")
"""Options that leave out layers on purpose: which ones, the tensors themselves say."""
HONOURED = ("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")
OF_TRAINING = (
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
    "unsloth_fixed",
)
"""Where the adapter comes from and how it was trained: no part of what it adds to the base."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", "mica"),
    "loftq_config": ({},),
    "runtime_config": ({}, {"ephemeral_gpu_offload": False}),
    **dict.fromkeys(("modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters"), ([],)),
    **dict.fromkeys(("use_dora", "use_qalora", "fan_in_fan_out", "lora_bias", "ensure_weight_tying"), (False,)),
    **dict.fromkeys(("alora_invocation_tokens", "arrow_config", "corda_config", "kasa_config", "lora_ga_config"), ()),
    **dict.fromkeys(("megatron_config", "monteclora_config", "velora_config"), ()),
    "use_bdlora": (False,),
}
"""Values besides null with which an option changes nothing. Starts of A and B that are not here (PiSSA, OLoRA, CorDA,
LoftQ, LoRA-GA) change the base, too: merged into the base as it was, the adapter would be another one."""


@dataclass(frozen=True)
class Options:
    """What an adapter's configuration says of its pairs."""

    rank: int
    alpha: float
    root: bool
    """rsLoRA: the scale divides by the root of the rank (Kalajdzievski 2023)."""
    chosen_layers: bool
    """Layers are left out on purpose."""
    ranks: Mapping[str, int]
    """By module, where a pattern says so."""
    alphas: Mapping[str, float]

    @property
    def scale(self) -> float:
        return self._scale(self.rank, self.alpha)

    def of(self, module: str) -> tuple[int, float]:
        """Rank and scale of one module."""
        rank = self.ranks.get(module, self.rank)
        return rank, self._scale(rank, self.alphas.get(module, self.alpha))

    def _scale(self, rank: int, alpha: float) -> float:
        return alpha / (math.sqrt(rank) if self.root else rank)


def read_peft_config(path: Path) -> dict[str, Any]:
    """The file's content. Raises UserError for what a merge or a server would lose."""
    config = _read(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UserError(f"adapters of type {kind} cannot be merged", where=str(path), fix="train a LoRA adapter")
    _refuse(config, path)
    return config


def options_of(config: Mapping[str, Any], path: Path, modules: Iterable[str]) -> Options:
    """`modules`: PEFT's names of what the adapter adapts. Raises UserError for values that cannot be."""
    rank = _rank(config.get("r"), f"{path}: r")
    alpha = _alpha(config.get("lora_alpha"), f"{path}: lora_alpha")
    root = config.get("use_rslora")
    if root is not None and not isinstance(root, bool):
        raise UserError(f"must be true or false, not {root!r}", where=f"{path}: use_rslora", fix="save it again")
    modules = sorted(modules)
    ranks, alphas = (_chosen(config, key, modules, path) for key in ("rank_pattern", "alpha_pattern"))
    return Options(
        rank,
        alpha,
        bool(root),
        any(config.get(key) for key in CHOOSES),
        {name: _rank(value, f"{path}: rank_pattern") for name, value in ranks.items()},
        {name: _alpha(value, f"{path}: alpha_pattern") for name, value in alphas.items()},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except ValueError as error:
        raise UserError(f"not a PEFT configuration ({error})", where=str(path), fix="save the adapter again") from error
    if not isinstance(config, dict):
        raise UserError("not a PEFT configuration (no object)", where=str(path), fix="save the adapter again")
    return config


def _refuse(config: Mapping[str, Any], path: Path) -> None:
    """Raises UserError for the first option that asks for more than a low-rank pair added to the base as it is."""
    for key, value in config.items():
        if key in HONOURED or key in OF_TRAINING or key in CHOOSES or value is None:
            continue
        if key not in NEUTRAL:
            fix = "train without it; or remove it from the file where it changes nothing"
            raise UserError("this option of PEFT is not known here", where=f"{path}: {key}", fix=fix)
        if any(type(value) is type(each) and value == each for each in NEUTRAL[key]):
            continue
        if key == "init_lora_weights":
            what = f"the adapter started from a changed base (init_lora_weights {value!r}), so it fits no other"
            fix = "save it with PEFT's path_initial_model_for_weight_conversion, which makes it a plain LoRA"
            raise UserError(what, where=f"{path}: {key}", fix=fix)
        raise UserError("this kind of adapter is not supported", where=f"{path}: {key}", fix="train without it")


def _rank(value: Any, where: str) -> int:
    if type(value) is not int or not 1 <= value <= 1 << 31:
        what = f"a rank is a whole number from 1 to 2^31, not {value!r}"
        raise UserError(what, where=where, fix="save the adapter again")
    return value


def _alpha(value: Any, where: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < abs(value) <= sys.float_info.max:
        what = f"alpha is a finite number other than 0, not {value!r}"
        raise UserError(what, where=where, fix="save the adapter again")
    return float(value)


def _chosen(config: Mapping[str, Any], key: str, modules: list[str], path: Path) -> dict[str, Any]:
    """PEFT's own rule: the first pattern that matches a module's name or its tail."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise UserError("must be an object: pattern to value", where=f"{path}: {key}", fix="save the adapter again")
    found = matched(list(patterns), modules, f"{path}: {key}")
    return {module: patterns[pattern] for module, pattern in found.items()}
