"""Llama 3.x and Qwen3 (dense): config.json as specs. Qwen3 is Llama with norms on queries and keys.

Defaults are those of transformers' LlamaConfig and Qwen3Config.
"""

from collections.abc import Mapping
from typing import Any

from models.families.reading import activation, one_rope, refuse
from models.spec import DecoderSpec, LayerSpec

UNSUPPORTED = {"attention_bias": "attention biases are", "mlp_bias": "MLP biases are"}


def llama(config: Mapping[str, Any], prefix: str) -> DecoderSpec:
    """Raises UserError for what is not supported, naming the key."""
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    windows: list[int | None] = [None] * config["num_hidden_layers"]
    return _spec("llama", config, prefix, head_dim, windows, positions=2048, qk_norm=False)


def qwen3(config: Mapping[str, Any], prefix: str) -> DecoderSpec:
    """Raises UserError for what is not supported, naming the key."""
    config = {"num_key_value_heads": 32, **config}
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window") else None
    first = config.get("max_window_layers", 28)
    kinds = config.get("layer_types") or [
        "sliding_attention" if window is not None and i >= first else "full_attention"
        for i in range(config["num_hidden_layers"])
    ]
    windows = [window if kind == "sliding_attention" else None for kind in kinds[: config["num_hidden_layers"]]]
    return _spec("qwen3", config, prefix, config.get("head_dim") or 128, windows, positions=32_768, qk_norm=True)


def _spec(
    family: str,
    config: Mapping[str, Any],
    prefix: str,
    head_dim: int,
    windows: list[int | None],
    positions: int,
    qk_norm: bool,
) -> DecoderSpec:
    refuse(config, UNSUPPORTED)

    def layer(window: int | None) -> LayerSpec:
        return LayerSpec(
            kind="global" if window is None else "sliding",
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            head_dim=head_dim,
            mlp_dim=config["intermediate_size"],
            rope=one_rope(config, head_dim, 10_000.0, positions),
            activation=activation(config, "hidden_act", "silu"),
            window=window,
            scale=head_dim**-0.5,
            qk_norm=qk_norm,
            post_norms=False,
        )

    return DecoderSpec(
        family=family,
        vocab=config["vocab_size"],
        width=config["hidden_size"],
        layers=tuple(layer(window) for window in windows),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        embed_scale=1.0,
        logit_cap=None,
        prefix=prefix,
        tied=config.get("tie_word_embeddings", False),
    )
