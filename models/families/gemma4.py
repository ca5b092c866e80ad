"""Gemma 4 (dense, E2B/E4B, mixture of experts; text-only and multimodal): its config.json as specs.

Layer facts are those of transformers' Gemma4TextConfig: head_dim and kv heads that differ on global layers, keys that
serve as values there, proportional rotary embedding; last layers that borrow keys and values (E2B, E4B).
"""

import math
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from models.families.reading import activation, refuse, rope, where
from models.spec import DecoderSpec, Experts, LayerSpec, PerLayerInput

KINDS = {"sliding_attention": "sliding", "full_attention": "global"}
UNSUPPORTED = {"attention_bias": "attention biases are"}


def spec(config: Mapping[str, Any], prefix: str, carried: tuple[str, ...] = ()) -> DecoderSpec:
    """`config`: the text part of config.json. Raises UserError for what is not supported, naming the key."""
    refuse(config, UNSUPPORTED)
    if config.get("use_bidirectional_attention") == "all":
        raise UserError("bidirectional attention is not supported", where=where("use_bidirectional_attention", "all"))
    layers = tuple(_layer(config, i) for i in range(config["num_hidden_layers"]))
    borrowers = [i for i, layer in enumerate(layers) if layer.shared_kv is not None]
    unused = ("k_proj", "v_proj", "k_norm")
    dim = config.get("hidden_size_per_layer_input")
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
        per_layer_input=PerLayerInput(config["vocab_size_per_layer_input"], dim) if dim else None,
        # Published checkpoints hold keys and values for layers that borrow them, too.
        carried=(*carried, *(f"{prefix}layers.{i}.self_attn.{name}." for i in borrowers for name in unused)),
    )


def _lender(config: Mapping[str, Any], i: int) -> int | None:
    """The last layer of the same type before the layers that borrow; None for a layer with its own keys."""
    first = config["num_hidden_layers"] - (config.get("num_kv_shared_layers") or 0)
    if i < first:
        return None
    types = config["layer_types"]
    if types[i] not in types[:first]:
        raise UserError(
            f"layer {i} has no earlier {types[i]} layer to borrow keys from",
            where=where("num_kv_shared_layers", config["num_kv_shared_layers"]),
        )
    return max(j for j in range(first) if types[j] == types[i])


def _layer(config: Mapping[str, Any], i: int) -> LayerSpec:
    kind = config["layer_types"][i]
    sliding = kind == "sliding_attention"
    k_is_v = bool(config.get("attention_k_eq_v")) and not sliding
    own = {key: config[key] for key in ("head_dim", "num_key_value_heads")}
    if not sliding:
        own["head_dim"] = config.get("global_head_dim", own["head_dim"])
        if k_is_v and config.get("num_global_key_value_heads"):
            own["num_key_value_heads"] = config["num_global_key_value_heads"]
    own.update(config.get("per_layer_config", {}).get(str(i), {}))
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
        rope=rope(config["rope_parameters"][kind], own["head_dim"], f"rope_parameters.{kind}"),
        activation=activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        window=config["sliding_window"] if sliding else None,
        k_is_v=k_is_v,
        v_norm=True,
        scalar=True,
        shared_kv=lender,
        experts=experts,
    )
