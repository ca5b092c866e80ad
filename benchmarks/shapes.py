"""Published models by their configurations: what programs are lowered and compiled for where no weights are."""

import dataclasses
from typing import Any

from models.families import spec_of
from models.spec import DecoderSpec

SLIDING, GLOBAL = "sliding_attention", "full_attention"
GEMMA4_31B: dict[str, Any] = {
    "model_type": "gemma4_text",
    "vocab_size": 262_144,
    "hidden_size": 5376,
    "intermediate_size": 21_504,
    "num_hidden_layers": 60,
    "layer_types": [*[SLIDING] * 5, GLOBAL] * 10,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "num_global_key_value_heads": 4,
    "head_dim": 256,
    "global_head_dim": 512,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "sliding_window": 1024,
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        GLOBAL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
    },
}
GEMMA3_27B: dict[str, Any] = {
    "model_type": "gemma3_text",
    "vocab_size": 262_208,
    "hidden_size": 5376,
    "intermediate_size": 21_504,
    "num_hidden_layers": 62,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "query_pre_attn_scalar": 168,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
QWEN3_32B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 5120,
    "intermediate_size": 25_600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40_960,
}
LLAMA31_8B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
    "max_position_embeddings": 131_072,
}
MODELS = {"gemma4-31b": GEMMA4_31B, "gemma3-27b": GEMMA3_27B, "qwen3-32b": QWEN3_32B, "llama3.1-8b": LLAMA31_8B}


def published(name: str, layers: int | None = None) -> DecoderSpec:
    """The model's decoder, or its first `layers`."""
    spec = spec_of(MODELS[name], name, lambda: ())
    return spec if layers is None else dataclasses.replace(spec, layers=spec.layers[:layers])


def weight_bytes(name: str) -> int:
    """Of the layers' products in bfloat16, which a pass over the model reads once."""
    spec, total = published(name), 0
    for layer in spec.layers:
        kv = (1 if layer.k_is_v else 2) * layer.kv_heads
        total += spec.width * ((2 * layer.heads + kv) * layer.head_dim + 3 * layer.mlp_dim)
    return 2 * total
