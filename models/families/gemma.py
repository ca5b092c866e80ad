"""Gemma 4 (dense, text): its config.json as specs, its tensors as rows.

Layer facts are those of transformers' Gemma4TextConfig: five sliding layers to one global, head_dim and kv heads that
differ on global layers, keys that serve as values there, proportional rotary embedding.
"""

import math
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from models.leaf import Leaf
from models.spec import DecoderSpec, LayerSpec, Rope

KINDS = {"sliding_attention": "sliding", "full_attention": "global"}
NORMS = {
    "input_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}
UNSUPPORTED = {
    "enable_moe_block": "mixture of experts",
    "hidden_size_per_layer_input": "per-layer embeddings",
    "num_kv_shared_layers": "shared key-value layers",
    "attention_bias": "attention biases",
}


def spec(config: Mapping[str, Any], prefix: str) -> DecoderSpec:
    """`config`: the text part of config.json. Raises UserError for what is not supported, naming the key."""
    for key, what in UNSUPPORTED.items():
        if config.get(key):
            raise UserError(f"{what} are not supported yet", where=f"config.json: {key} = {config[key]}")
    if not config.get("tie_word_embeddings", True):
        raise UserError("untied embeddings are not supported", where="config.json: tie_word_embeddings = false")
    return DecoderSpec(
        family="gemma4",
        vocab=config["vocab_size"],
        width=config["hidden_size"],
        layers=tuple(_layer(config, i) for i in range(config["num_hidden_layers"])),
        norm_eps=config["rms_norm_eps"],
        embed_scale=math.sqrt(config["hidden_size"]),
        logit_cap=config.get("final_logit_softcapping"),
        prefix=prefix,
    )


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
    rope = config["rope_parameters"][kind]
    share = rope.get("partial_rotary_factor", 1.0) if rope["rope_type"] == "proportional" else 1.0
    return LayerSpec(
        kind=KINDS[kind],
        heads=config["num_attention_heads"],
        kv_heads=own["num_key_value_heads"],
        head_dim=own["head_dim"],
        mlp_dim=config["intermediate_size"],
        rope=Rope(rope["rope_theta"], int(share * own["head_dim"] // 2)),
        window=config["sliding_window"] if sliding else None,
        k_is_v=k_is_v,
    )


def layer_rows(spec: DecoderSpec, layer: LayerSpec, path: str, numbers: tuple[int, ...] | None) -> list[Leaf]:
    """Rows of one layer (`numbers` None: the layer that `path` ends with) or of all layers of a kind, stacked."""
    d, n, k, h, f = spec.width, layer.heads, layer.kv_heads, layer.head_dim, layer.mlp_dim
    size = {"d": d, "n": n, "k": k, "h": h, "f": f, "s": 2}
    stack = numbers is not None
    wanted = numbers if numbers is not None else (int(path.rsplit(".", 1)[-1]),)

    def row(name: str, hf: tuple[str, ...], ours: str, theirs: str) -> Leaf:
        names = tuple(f"{spec.prefix}layers.{i}.{each}" for i in wanted for each in hf)
        shape = tuple(size[x] for x in ours.split())
        return Leaf(
            f"{path}.{name}",
            names,
            f"l {ours}".strip() if stack else ours,
            theirs,
            (len(wanted), *shape) if stack else shape,
        )

    kv = (
        row("kv", ("self_attn.k_proj.weight",), "d k h", "(k h) d")
        if layer.k_is_v
        else row("kv", ("self_attn.k_proj.weight", "self_attn.v_proj.weight"), "s d k h", "(k h) d")
    )
    return [
        row("q", ("self_attn.q_proj.weight",), "d n h", "(n h) d"),
        kv,
        row("o", ("self_attn.o_proj.weight",), "n h d", "d (n h)"),
        row("gate_up", ("mlp.gate_proj.weight", "mlp.up_proj.weight"), "s d f", "f d"),
        row("down", ("mlp.down_proj.weight",), "f d", "d f"),
        row("q_norm", ("self_attn.q_norm.weight",), "h", "h"),
        row("k_norm", ("self_attn.k_norm.weight",), "h", "h"),
        *(row(ours, (f"{theirs}.weight",), "d", "d") for ours, theirs in NORMS.items()),
        row("scalar", ("layer_scalar",), "", "()"),
    ]


def rows(spec: DecoderSpec, stacked: bool) -> list[Leaf]:
    """The whole table: layers stacked by kind, or each layer for itself."""
    v, d = spec.vocab, spec.width
    table = [Leaf("embed", (f"{spec.prefix}embed_tokens.weight",), "v d", "v d", (v, d))]
    if stacked:
        for kind in spec.kinds:
            table += layer_rows(spec, spec.of_kind(kind), kind, spec.numbers(kind))
    else:
        for i, layer in enumerate(spec.layers):
            table += layer_rows(spec, layer, f"layers.{i}", None)
    return [*table, Leaf("final_norm", (f"{spec.prefix}norm.weight",), "d", "d", (d,))]
