"""What families share in reading a config.json: rope, activation, refusals by name, and sizes that cannot be."""

from collections.abc import Iterable, Mapping
from typing import Any

from common.errors import UserError
from models.spec import Activation, DecoderSpec, Rope, Stretch

ACTIVATIONS: dict[str, Activation] = {"gelu_pytorch_tanh": "gelu", "silu": "silu"}
DIVISORS = ("num_attention_heads", "sliding_window_pattern")
"""Sizes that a family divides by while it reads."""
MOST_LAYERS = 10_000
"""Each has a spec of its own: more would take the memory before a tensor is missed."""
WHOLE = (
    *DIVISORS,
    "vocab_size",
    "vocab_size_per_layer_input",
    "hidden_size",
    "hidden_size_per_layer_input",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_global_key_value_heads",
    "num_kv_shared_layers",
    "num_experts",
    "top_k_experts",
    "head_dim",
    "global_head_dim",
    "sliding_window",
    "max_window_layers",
)
NUMBERS = (
    "rms_norm_eps",
    "query_pre_attn_scalar",
    "rope_theta",
    "rope_local_base_freq",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "partial_rotary_factor",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
)
SMALLEST = 1e-30
"""With its inverse, bounds between which powers and quotients stay in float32."""
LARGEST = 1 << 31
"""No axis is longer, and int32 counts to it."""
FLAGS = (
    "attention_bias",
    "attention_k_eq_v",
    "enable_moe_block",
    "mlp_bias",
    "tie_word_embeddings",
    "use_double_wide_mlp",
    "use_sliding_window",
)
OBJECTS = ("rope_parameters", "rope_scaling", "per_layer_config", "full_attention", "sliding_attention")
LAYER_TYPES = ("full_attention", "sliding_attention")


def where(key: str, value: Any) -> str:
    return f"config.json: {key} = {value}"


def refuse(config: Mapping[str, Any], unsupported: Mapping[str, str]) -> None:
    """Raises UserError for the first key that asks for what the decoder cannot do."""
    for key, what in unsupported.items():
        if config.get(key):
            raise UserError(f"{what} not supported", where=where(key, config[key]))


def check_types(config: Mapping[str, Any], path: str = "") -> None:
    """Raises UserError for the first value that has another type than its key asks for; null is a key left out."""
    for key, value in config.items():
        at, number = where(f"{path}{key}", value), isinstance(value, int | float) and not isinstance(value, bool)
        if value is None:
            continue
        if key in WHOLE and not (number and isinstance(value, int) and abs(value) < LARGEST):
            raise UserError(f"must be a whole number below {LARGEST}", where=at)
        if key in DIVISORS and value < 1:
            raise UserError("must be a positive whole number", where=at)
        if key == "num_hidden_layers" and value > MOST_LAYERS:
            raise UserError(f"is more than {MOST_LAYERS} layers", where=at)
        if key in NUMBERS and not (number and SMALLEST < value < 1 / SMALLEST):
            raise UserError("must be a positive number that float32 can hold", where=at)
        if key in FLAGS and not isinstance(value, bool):
            raise UserError("must be true or false", where=at)
        if key in OBJECTS:
            if not isinstance(value, dict):
                raise UserError("must be an object", where=at)
            check_types(value, f"{path}{key}.")
    types = config.get("layer_types")
    if types is None:
        return
    if not isinstance(types, list) or any(kind not in LAYER_TYPES for kind in types):
        raise UserError(
            "must be a list of layer types", where=where("layer_types", types), fix=f"known: {', '.join(LAYER_TYPES)}"
        )
    if len(types) < (config.get("num_hidden_layers") or 0):
        raise UserError(
            f"names {len(types)} layers, num_hidden_layers = {config['num_hidden_layers']}",
            where="config.json: layer_types",
        )


def activation(config: Mapping[str, Any], key: str, default: str) -> Activation:
    """The gate's function that `key` names. Raises UserError for one that is not supported."""
    name = config.get(key) or default
    if not isinstance(name, str) or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError("this activation is not supported", where=where(key, name), fix=f"known: {known}")
    return ACTIVATIONS[name]


def rope(parameters: Mapping[str, Any], head_dim: int, key: str = "rope_parameters") -> Rope:
    """`parameters`: one rope's entry, old (`type`) or new (`rope_type`) spelling, with its rope_theta. Raises UserError
    for a scaling that is not supported."""
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    theta, half = parameters["rope_theta"], head_dim // 2
    if kind == "default":
        return Rope(theta, half)
    if kind == "linear":
        return Rope(theta, half, parameters["factor"])
    if kind == "proportional":
        share = parameters.get("partial_rotary_factor", 1.0)
        if share > 1:
            raise UserError("must be at most 1", where=where(f"{key}.partial_rotary_factor", share))
        return Rope(theta, int(share * head_dim // 2), parameters.get("factor", 1.0))
    if kind == "llama3":
        names = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        return Rope(theta, half, parameters["factor"], Stretch(*(parameters[name] for name in names)))
    known = "default, linear, llama3, proportional"
    raise UserError("this rope scaling is not supported", where=where(f"{key}.rope_type", kind), fix=f"known: {known}")


def one_rope(config: Mapping[str, Any], head_dim: int, theta: float, positions: int) -> Rope:
    """The rope of a model whose layers all share it. As in transformers, `rope_scaling` takes the place of
    `rope_parameters`, and what neither says is the configuration's own (`theta`, `positions`: its defaults). Raises
    UserError for one a type of layers, or of a part of each head."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given = config.get(key) or {}
    if nested := [kind for kind in LAYER_TYPES if kind in given]:
        raise UserError("a rope for each type of layers is not supported here", where=where(key, nested[0]))
    parameters = {"rope_theta": config.get("rope_theta", theta), **given}
    share = parameters.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if share not in (None, 1):
        raise UserError("turning a part of each head is not supported", where=where("partial_rotary_factor", share))
    positions = config.get("max_position_embeddings") or positions
    return rope({"original_max_position_embeddings": positions, **parameters}, head_dim, key)


def _no_nulls(numbers: Mapping[str, float | None], of: str) -> None:
    """transformers, too, keeps the null of these keys, and fails over it where the number is used."""
    for key, value in numbers.items():
        if value is None:
            raise UserError("must not be null", where=f"{where(key, value)}{of}", fix="or leave the key out")


def check(spec: DecoderSpec) -> DecoderSpec:
    """The spec, when its sizes can be. Raises UserError naming the key and the layer."""
    _no_nulls({"rms_norm_eps": spec.norm_eps, "tie_word_embeddings": spec.tied}, "")
    _positive({"vocab_size": spec.vocab, "hidden_size": spec.width, "num_hidden_layers": len(spec.layers)}.items(), "")
    if (own := spec.per_layer_input) is not None:
        _positive({"hidden_size_per_layer_input": own.dim, "vocab_size_per_layer_input": own.vocab}.items(), "")
    for i, layer in enumerate(spec.layers):
        if layer != (first := spec.of_kind(layer.kind)):
            raise UserError(
                f"layers {spec.layers.index(first)} and {i} are of one type and differ: this is not supported",
                where="config.json: per_layer_config",
            )
        sizes = {
            "num_attention_heads": layer.heads,
            "num_key_value_heads": layer.kv_heads,
            "head_dim": layer.head_dim,
            "intermediate_size": layer.mlp_dim,
            "sliding_window": 1 if layer.window is None else layer.window,
        }
        if (experts := layer.experts) is not None:
            sizes |= {
                "num_experts": experts.count,
                "top_k_experts": experts.top_k,
                "moe_intermediate_size": experts.dim,
            }
            if experts.top_k > experts.count:
                raise UserError("are more than num_experts", where=where("top_k_experts", experts.top_k))
        _positive(sizes.items(), f" (layer {i})")
        rope = layer.rope
        numbers: dict[str, float | None] = {"rope_theta": rope.theta, "factor": rope.factor}
        if rope.stretch is not None:
            numbers |= {"low_freq_factor": rope.stretch.low, "high_freq_factor": rope.stretch.high}
        _no_nulls(numbers, f" (layer {i})")
        if layer.heads % layer.kv_heads or layer.head_dim % 2:
            raise UserError(
                "query heads must be a multiple of key heads, and head_dim even",
                where=f"config.json: num_attention_heads = {layer.heads}, num_key_value_heads = {layer.kv_heads}, "
                f"head_dim = {layer.head_dim} (layer {i})",
            )
    return spec


def _positive(sizes: Iterable[tuple[str, Any]], layer: str) -> None:
    for key, value in sizes:
        if type(value) is not int or value < 1:
            raise UserError("must be a positive whole number", where=where(key, value) + layer)
