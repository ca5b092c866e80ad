"""Any value under any key of a config.json gives a decoder that can be, or a UserError that names the file."""

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from models.attention.exact import frequencies
from models.families import rows, spec_of
from models.families.reading import FLAGS, NUMBERS, OBJECTS, WHOLE
from models.mesh import auto_mesh, check_tp
from models.spec import DecoderSpec
from tests.models.families import DENSE, GEMMA3, GEMMA4, GLOBAL, LLAMA3, SIZES, SLIDING

BORROWING = {
    "num_hidden_layers": 9,
    "layer_types": [SLIDING, SLIDING, GLOBAL] * 3,
    "num_kv_shared_layers": 4,
    "hidden_size_per_layer_input": 8,
}
EXPERTS = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24}
BASES: list[dict[str, Any]] = [
    {"model_type": "gemma3_text", **GEMMA3},
    {"model_type": "gemma4_text", **GEMMA4, **DENSE, **EXPERTS},
    {"model_type": "gemma4_text", **GEMMA4, **BORROWING},
    {"model_type": "llama", **SIZES, "num_hidden_layers": 2, "rope_parameters": LLAMA3},
    {"model_type": "qwen3", **SIZES, "num_hidden_layers": 2},
    {"model_type": "gemma4", "text_config": {**GEMMA4, **DENSE}},
]
OTHERS = ("model_type", "text_config", "layer_types", "hidden_activation", "hidden_act", "rope_type", "type")
KEYS = (*WHOLE, *NUMBERS, *FLAGS, *OBJECTS, *OTHERS)
LEAVES = st.one_of(
    st.sampled_from([None, True, False, "", "x", "4", "linear", "proportional", SLIDING, "silu"]),
    st.sampled_from([0, -1, 1, 2, 3, 7, 16, 10**6, 10**12, 10**400, -(10**30)]),
    st.sampled_from([0.0, -0.5, 0.25, 1.0, 2.5, 1e308, 1e-320, math.nan, math.inf, -math.inf]),
)
INNER = st.sampled_from([*NUMBERS, "rope_type", "0", "00", "1", "head_dim", "num_key_value_heads", GLOBAL, SLIDING])
VALUES = st.recursive(LEAVES, lambda each: st.lists(each, max_size=3) | st.dictionaries(INNER, each, max_size=3))


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    config = copy.deepcopy(draw(st.sampled_from(BASES)))
    text = config.get("text_config", config)
    for key, value in draw(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3)):
        place = text if draw(st.integers(0, 4)) else config
        place[key] = value
    return config


def check_sane(spec: DecoderSpec) -> None:
    for layer in spec.layers:
        assert layer == spec.of_kind(layer.kind), "layers of one kind are stacked"
        assert np.isfinite(frequencies(layer.rope, min(layer.head_dim, 4096))).all()
        assert all(0 < x < math.inf for x in (layer.scale, layer.cap or 1.0, spec.logit_cap or 1.0, spec.norm_eps))
        assert layer.shared_kv is None or spec.layers[layer.shared_kv].shared_kv is None
    assert isinstance(spec.tied, bool)


@settings(max_examples=400, deadline=None)
@given(changed())
def test_every_value_gives_a_decoder_or_is_refused(config: dict[str, Any]) -> None:
    try:
        spec = spec_of(config, "model", lambda: ())
    except UserError as error:
        assert "config.json" in error.where
        return
    check_sane(spec)
    assert rows(spec, True)
    for replicate in ("none", "kv", "all"):
        try:
            check_tp(spec, 3, replicate)
            auto_mesh(8, replicate, spec, 4)
        except UserError as error:
            assert error.fix


@pytest.mark.parametrize(
    ("number", "key", "value", "what"),
    [
        (0, "num_hidden_layers", 10**9, "more than 10000 layers"),
        (0, "query_pre_attn_scalar", math.inf, "positive number"),
        (0, "tie_word_embeddings", 2, "true or false"),
        (1, "vocab_size", 10**12, "whole number below"),
        (1, "top_k_experts", 5, "more than num_experts"),
        (1, "per_layer_config", {"0": {"head_dim": 32}}, "of one type and differ"),
        (2, "num_kv_shared_layers", 10, "no earlier"),
        (2, "hidden_size_per_layer_input", -1, "positive whole number"),
        (3, "rope_parameters", {"rope_type": "linear", "factor": 0}, "positive number"),
    ],
)
def test_what_cannot_be_is_named(number: int, key: str, value: Any, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        spec_of({**BASES[number], key: value}, "model", lambda: ())
    assert key in caught.value.where


def test_a_model_of_very_many_heads_is_answered_at_once() -> None:
    spec = spec_of({**BASES[3], "num_attention_heads": 1 << 30}, "model", lambda: ())
    with pytest.raises(UserError, match="does not divide"):
        check_tp(spec, 3, "none")
