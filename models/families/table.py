"""The table that all families share: rows follow from the specs, and from the names of the norms and the experts."""

from dataclasses import replace

from models.leaf import PRODUCT, Leaf, Row, Use
from models.spec import DecoderSpec, LayerSpec

POST_NORMED = {
    "input_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}
PRE_NORMED = {"input_norm": "input_layernorm", "pre_mlp_norm": "post_attention_layernorm"}
EXPERT_NORMS = {
    "post_dense_norm": "post_feedforward_layernorm_1",
    "pre_experts_norm": "pre_feedforward_layernorm_2",
    "post_experts_norm": "post_feedforward_layernorm_2",
}
JOINS = replace(PRODUCT, float32_out=True)
"""A product whose result joins the residual stream."""
IN_FULL = replace(PRODUCT, quantizable=False)
EXPERTS = Use(quantizable=True)
TOKENS = Use(tokens=True)


def _attention(layer: LayerSpec) -> list[Row]:
    rows = [
        Row("q", ("self_attn.q_proj.weight",), "n h d", "(n h) d", PRODUCT),
        Row("o", ("self_attn.o_proj.weight",), "d n h", "d (n h)", JOINS),
    ]
    if layer.shared_kv is None and layer.k_is_v:
        rows.insert(1, Row("kv", ("self_attn.k_proj.weight",), "k h d", "(k h) d", PRODUCT))
    elif layer.shared_kv is None:
        both = ("self_attn.k_proj.weight", "self_attn.v_proj.weight")
        rows.insert(1, Row("kv", both, "s k h d", "(k h) d", PRODUCT))
    if layer.qk_norm:
        rows.append(Row("q_norm", ("self_attn.q_norm.weight",), "h", "h"))
        if layer.shared_kv is None:
            rows.append(Row("k_norm", ("self_attn.k_norm.weight",), "h", "h"))
    return rows


def _experts() -> list[Row]:
    return [
        Row("router", ("router.proj.weight",), "e d", "e d", replace(IN_FULL, float32_out=True)),
        Row("router_scale", ("router.scale",), "d", "d"),
        Row("expert_scale", ("router.per_expert_scale",), "e", "e"),
        Row("experts_gate_up", ("experts.gate_up_proj",), "e s g d", "e (s g) d", EXPERTS),
        Row("experts_down", ("experts.down_proj",), "e d g", "e d g", EXPERTS),
        *(Row(ours, (f"{theirs}.weight",), "d", "d") for ours, theirs in EXPERT_NORMS.items()),
    ]


def _per_layer_input() -> list[Row]:
    return [
        Row("per_layer_input_gate", ("per_layer_input_gate.weight",), "p d", "p d", IN_FULL),
        Row("per_layer_projection", ("per_layer_projection.weight",), "d p", "d p", replace(IN_FULL, float32_out=True)),
        Row("per_layer_input_norm", ("post_per_layer_input_norm.weight",), "d", "d"),
    ]


def layer_rows(spec: DecoderSpec, layer: LayerSpec, path: str, numbers: tuple[int, ...] | None) -> list[Leaf]:
    """Rows of one layer (`numbers` None: the layer that `path` ends with) or of all layers of a kind, stacked."""
    size = {"d": spec.width, "n": layer.heads, "k": layer.kv_heads, "h": layer.head_dim, "f": layer.mlp_dim, "s": 2}
    rows = [
        *_attention(layer),
        Row("gate_up", ("mlp.gate_proj.weight", "mlp.up_proj.weight"), "s f d", "f d", PRODUCT),
        Row("down", ("mlp.down_proj.weight",), "d f", "d f", JOINS),
        *spec.own_rows,
    ]
    norms = POST_NORMED if layer.post_norms else PRE_NORMED
    rows += [Row(ours, (f"{theirs}.weight",), "d", "d") for ours, theirs in norms.items()]
    if layer.scalar:
        rows.append(Row("scalar", ("layer_scalar",), "", "()"))
    if layer.experts is not None:
        size |= {"e": layer.experts.count, "g": layer.experts.dim}
        rows += _experts()
    if spec.per_layer_input is not None:
        size["p"] = spec.per_layer_input.dim
        rows += _per_layer_input()
    stack = numbers is not None
    wanted = numbers if numbers is not None else (int(path.rsplit(".", 1)[-1]),)

    def leaf(row: Row) -> Leaf:
        names = tuple(f"{spec.prefix}layers.{i}.{each}" for i in wanted for each in row.hf_names)
        shape = tuple(size[x] for x in row.our_axes.split())
        axes, sizes = (f"l {row.our_axes}".strip(), (len(wanted), *shape)) if stack else (row.our_axes, shape)
        return Leaf(f"{path}.{row.name}", names, axes, row.hf_axes, sizes, row.use)

    return [leaf(row) for row in rows]


def rows(spec: DecoderSpec, stacked: bool) -> list[Leaf]:
    """The whole table: layers stacked by kind, or each layer for itself."""
    v, d, at = spec.vocab, spec.width, spec.prefix
    table = [Leaf("embed", (f"{at}embed_tokens.weight",), "v d", "v d", (v, d), TOKENS)]
    if spec.per_layer_input is not None:
        y, p, u = len(spec.layers), spec.per_layer_input.dim, spec.per_layer_input.vocab
        table += [
            Leaf("per_layer_embed", (f"{at}embed_tokens_per_layer.weight",), "v y p", "v (y p)", (u, y, p), TOKENS),
            Leaf(
                "per_layer_model_projection",
                (f"{at}per_layer_model_projection.weight",),
                "y p d",
                "(y p) d",
                (y, p, d),
                Use(adaptable=True),
            ),
            Leaf("per_layer_projection_norm", (f"{at}per_layer_projection_norm.weight",), "p", "p", (p,)),
        ]
    if stacked:
        for kind in spec.kinds:
            table += layer_rows(spec, spec.of_kind(kind), kind, spec.numbers(kind))
    else:
        for i, layer in enumerate(spec.layers):
            table += layer_rows(spec, layer, f"layers.{i}", None)
    table.append(Leaf("final_norm", (f"{at}norm.weight",), "d", "d", (d,)))
    if not spec.tied:
        table.append(Leaf("unembed", ("lm_head.weight",), "v d", "v d", (v, d), TOKENS))
    return table
