"""Gemma 4 (dense, E2B/E4B, mixture of experts; text-only and multimodal): its config.json as specs.

Layer facts are those of transformers' Gemma4TextConfig: head_dim and kv heads that differ on global layers, keys that
serve as values there, proportional rotary embedding; last layers that borrow keys and values (E2B, E4B).
"""

import math
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from models.families.reading import activation, refuse, rope, where
from models.spec import DecoderSpec, Experts, LayerSpec, PerLayerInput, Rope

KINDS = {"sliding_attention": "sliding", "full_attention": "global"}
UNSUPPORTED = {"attention_bias": "attention biases are"}
DEFAULTS = {
    "vocab_size": 262_144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "global_head_dim": 512,
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "vocab_size_per_layer_input": 262_144,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
    },
}
SIZES = frozenset(DEFAULTS) - {"rope_parameters", "sliding_window"}
"""Keys that mean something else when they are null than when they are not there."""
PER_LAYER = ("head_dim", "num_key_value_heads")
PATTERN = 6
"""Every so many layers one is global, where layer_types does not say."""


def spec(config: Mapping[str, Any], prefix: str, carried: tuple[str, ...] = ()) -> DecoderSpec:
    """`config`: the text part of config.json. Raises UserError for what is not supported, naming the key."""
    per_layer_input = config.get("hidden_size_per_layer_input", 256)
    config = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None or key in SIZES}}
    refuse(config, UNSUPPORTED)
    config["layer_types"] = _layer_types(config)
    if config.get("use_bidirectional_attention") == "all":
        raise UserError("bidirectional attention is not supported", where=where("use_bidirectional_attention", "all"))
    overrides = _overrides(config)
    layers = tuple(_layer(config, i, overrides.get(i)) for i in range(config["num_hidden_layers"]))
    borrowers = [i for i, layer in enumerate(layers) if layer.shared_kv is not None]
    unused = ("k_proj", "v_proj", "k_norm")
    return DecoderSpec(
        family="gemma4",
        vocab=config["vocab_size"],
        width=config["hidden_size"],
        layers=layers,
        norm_eps=config["rms_norm_eps"],
        embed_scale=math.sqrt(config["hidden_size"]),
        logit_cap=config.get("final_logit_softcapping"),
        prefix=prefix,
        tied=config.get("tie_word_embeddings", True),
        per_layer_input=PerLayerInput(config["vocab_size_per_layer_input"], per_layer_input)
        if per_layer_input
        else None,
        # Published checkpoints hold keys and values for layers that borrow them, too.
        carried=(*carried, *(f"{prefix}layers.{i}.self_attn.{name}." for i in borrowers for name in unused)),
    )


def _lender(config: Mapping[str, Any], i: int) -> int | None:
    """The last layer of the same type before the layers that borrow; None for a layer with its own keys."""
    first = config["num_hidden_layers"] - (config.get("num_kv_shared_layers") or 0)
    if i < first:
        return None
    types = config["layer_types"]
    if types[i] not in types[: max(first, 0)]:
        raise UserError(
            f"layer {i} has no earlier {types[i]} layer to borrow keys from",
            where=where("num_kv_shared_layers", config["num_kv_shared_layers"]),
        )
    return max(j for j in range(first) if types[j] == types[i])


def _layer_types(config: Mapping[str, Any]) -> list[str]:
    """Of every layer; the last one is global whatever the configuration says, as in transformers."""
    count = config["num_hidden_layers"]
    every = config.get("layer_types") or [
        "sliding_attention" if (i + 1) % PATTERN else "full_attention" for i in range(count)
    ]
    return [*every[: count - 1], "full_attention"]


def _overrides(config: Mapping[str, Any]) -> dict[int, dict[str, int]]:
    """What single layers have of their own, by number: transformers writes `"03"` beside `"10"`."""
    found: dict[int, dict[str, int]] = {}
    for key, own in (config.get("per_layer_config") or {}).items():
        at = where(f"per_layer_config.{key}", own)
        if not (key.isascii() and key.isdigit()) or int(key) >= config["num_hidden_layers"] or int(key) in found:
            raise UserError("must name each layer once, by its number", where=at)
        if not isinstance(own, dict):
            raise UserError("must be an object", where=at)
        for name, value in own.items():
            if name not in PER_LAYER and value != config.get(name):
                raise UserError(f"layers that differ in {name} are not supported", where=at)
        found[int(key)] = {name: own[name] for name in PER_LAYER if name in own}
    return found


def _rope(config: Mapping[str, Any], kind: str, head_dim: int) -> Rope:
    """As in transformers, `rope_scaling` takes the place of `rope_parameters`."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    if not isinstance(own := config[key].get(kind), dict):
        raise UserError(f"lacks the rope of its {kind} layers", where=where(key, config[key]))
    return rope(own, head_dim, f"{key}.{kind}")


def _layer(config: Mapping[str, Any], i: int, override: Mapping[str, int] | None) -> LayerSpec:
    kind = config["layer_types"][i]
    sliding = kind == "sliding_attention"
    k_is_v = bool(config.get("attention_k_eq_v")) and not sliding
    own = {key: config[key] for key in ("head_dim", "num_key_value_heads")}
    if "per_layer_config" in config:
        own |= override or {}
    elif not sliding:
        own["head_dim"] = config["global_head_dim"]
        if k_is_v and config.get("num_global_key_value_heads"):
            own["num_key_value_heads"] = config["num_global_key_value_heads"]
    lender = _lender(config, i)
    wide = 2 if lender is not None and config.get("use_double_wide_mlp") else 1
    experts = None
    if config.get("enable_moe_block"):
        experts = Experts(config["num_experts"], config["top_k_experts"], config["moe_intermediate_size"])
    return LayerSpec(
        kind=KINDS[kind] if lender is None else f"{KINDS[kind]}_shared",
        heads=config["num_attention_heads"],
        kv_heads=own["num_key_value_heads"],
        head_dim=own["head_dim"],
        mlp_dim=wide * config["intermediate_size"],
        rope=_rope(config, kind, own["head_dim"]),
        activation=activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        window=config["sliding_window"] if sliding else None,
        k_is_v=k_is_v,
        v_norm=True,
        scalar=True,
        shared_kv=lender,
        experts=experts,
    )
