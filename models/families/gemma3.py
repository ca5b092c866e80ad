"""Gemma 3 (text, and the text part of the multimodal models): its config.json as specs.

Facts and defaults are those of transformers' Gemma3TextConfig: the small configs on the Hub leave most keys out.
"""

import math
from collections.abc import Mapping
from typing import Any

from models.families.reading import activation, refuse, rope
from models.spec import DecoderSpec, LayerSpec

DEFAULTS = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}
THETAS = {"full_attention": ("rope_theta", 1_000_000.0), "sliding_attention": ("rope_local_base_freq", 10_000.0)}
UNSUPPORTED = {
    "attention_bias": "attention biases are",
    "use_bidirectional_attention": "bidirectional attention is",
}


def spec(config: Mapping[str, Any], prefix: str, carried: tuple[str, ...] = ()) -> DecoderSpec:
    """`config`: the text part of config.json. Raises UserError for what is not supported, naming the key."""
    config = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    refuse(config, UNSUPPORTED)
    pattern = config["sliding_window_pattern"]
    kinds = config.get("layer_types") or [
        "sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(config["num_hidden_layers"])
    ]
    return DecoderSpec(
        family="gemma3",
        vocab=config["vocab_size"],
        width=config["hidden_size"],
        layers=tuple(_layer(config, kind) for kind in kinds[: config["num_hidden_layers"]]),
        norm_eps=config["rms_norm_eps"],
        embed_scale=math.sqrt(config["hidden_size"]),
        logit_cap=config.get("final_logit_softcapping"),
        prefix=prefix,
        norm_offset=1.0,
        tied=config.get("tie_word_embeddings", True),
        carried=carried,
    )


def _layer(config: Mapping[str, Any], kind: str) -> LayerSpec:
    sliding = kind == "sliding_attention"
    key, theta = THETAS[kind]
    # As transformers has it: rope_scaling is of the global layers alone, and goes before rope_parameters.
    given = config.get("rope_parameters")
    own = {"rope_type": "default"} if given is None else given.get(kind) or {"rope_type": "default"}
    scaling = {} if sliding else config.get("rope_scaling") or {}
    return LayerSpec(
        kind="sliding" if sliding else "global",
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        mlp_dim=config["intermediate_size"],
        rope=rope(
            {"rope_theta": config.get(key, theta), **own, **scaling}, config["head_dim"], f"rope_parameters.{kind}"
        ),
        activation=activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        window=config["sliding_window"] if sliding else None,
        scale=config["query_pre_attn_scalar"] ** -0.5,
        cap=config.get("attn_logit_softcapping"),
    )
