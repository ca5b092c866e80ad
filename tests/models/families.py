"""One shrunken model of every family and variant, with random weights, as transformers builds it."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SLIDING, GLOBAL = "sliding_attention", "full_attention"
WINDOW = 8
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
}
GEMMA3: dict[str, Any] = {
    **SIZES,
    "num_hidden_layers": 3,
    "layer_types": [SLIDING, SLIDING, GLOBAL],
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 24,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        GLOBAL: {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
    },
}
GEMMA4: dict[str, Any] = {
    **SIZES,
    "vocab_size_per_layer_input": 96,
    "global_head_dim": 32,
    "sliding_window": WINDOW,
    "final_logit_softcapping": 30.0,
    "hidden_size_per_layer_input": 0,
}
DENSE = {
    "num_hidden_layers": 3,
    "layer_types": [SLIDING, SLIDING, GLOBAL],
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SIGHT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "patch_size": 8,
    "image_size": 32,
}


def _gemma3_multimodal() -> Any:
    config = Gemma3Config(
        text_config=GEMMA3, vision_config={**SIGHT, "model_type": "siglip_vision_model"}, mm_tokens_per_image=4
    )
    return Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager")


def _gemma4_multimodal() -> Any:
    vision = {**SIGHT, "position_embedding_size": 64}
    config = Gemma4Config(text_config={**GEMMA4, **DENSE}, vision_config=vision, audio_config=None)
    return Gemma4ForConditionalGeneration(config)


def _gemma4(**more: Any) -> Any:
    return Gemma4ForCausalLM(Gemma4TextConfig(**{**GEMMA4, **more}))


FAMILIES: dict[str, Callable[[], Any]] = {
    "gemma3": lambda: Gemma3ForCausalLM._from_config(Gemma3TextConfig(**GEMMA3), attn_implementation="eager"),
    "gemma3 multimodal": _gemma3_multimodal,
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, num_hidden_layers=2)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2, rope_parameters=LLAMA3)),
    "llama tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2, tie_word_embeddings=True)),
    "gemma4 multimodal": _gemma4_multimodal,
    "gemma4 E2B": lambda: _gemma4(
        num_hidden_layers=9,
        layer_types=[SLIDING, SLIDING, GLOBAL] * 3,
        num_kv_shared_layers=4,
        use_double_wide_mlp=True,
        hidden_size_per_layer_input=8,
    ),
    "gemma4 experts": lambda: _gemma4(
        **DENSE, enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=24
    ),
}


def build(name: str) -> Any:
    """The model in float32, with weights that give logits of order one."""
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    unit = 0.0 if name.startswith("gemma3") else 1.0
    with torch.no_grad():
        for key, value in (*model.named_parameters(), *model.named_buffers()):
            noise = torch.randn(value.shape)
            if "norm" in key and value.ndim == 1:
                value.copy_(unit + 0.2 * noise)
            elif key.endswith(("layer_scalar", "router.scale", "per_expert_scale")):
                value.copy_(1 + 0.2 * noise)
            elif key.endswith(".weight") or "experts." in key:
                value.copy_(noise * value.shape[-1] ** -0.5)
    return model
