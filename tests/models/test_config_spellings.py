"""Configurations in any spelling, old and new, mean to us what transformers' own class makes of them."""

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma3TextConfig, Gemma4TextConfig, LlamaConfig, Qwen3Config

from common.errors import UserError
from models.families import read_spec
from models.families.reading import rope
from models.spec import DecoderSpec

GLOBAL, SLIDING = "full_attention", "sliding_attention"
SIZES = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 48, "num_attention_heads": 4}
CLASSES = {"llama": LlamaConfig, "qwen3": Qwen3Config, "gemma3_text": Gemma3TextConfig, "gemma4_text": Gemma4TextConfig}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def spec_of(config: dict[str, Any]) -> DecoderSpec:
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return read_spec(folder)


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


@st.composite
def ropes(draw: st.DrawFn, kinds: tuple[str, ...], whole: bool = False) -> dict[str, Any]:
    kind = draw(st.sampled_from(kinds))
    found: dict[str, Any] = {draw(one_of("rope_type", "type")): kind}
    if kind != "default":
        found["factor"] = draw(one_of(2.0, 8.0))
    if kind == "llama3":
        found |= {
            key: LLAMA3[key] for key in LLAMA3 if key != "original_max_position_embeddings" or draw(st.booleans())
        }
    if whole or draw(st.booleans()):
        found["rope_theta"] = draw(one_of(500_000.0, 20_000.0))
    return found


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from(list(CLASSES)))
    layers = draw(st.integers(1, 14))
    config: dict[str, Any] = {"model_type": family, **SIZES, "num_hidden_layers": layers}
    if family == "qwen3":  # transformers' own default is 32
        config["num_key_value_heads"] = draw(one_of(2, None))
    optional: dict[str, Any] = {
        "num_key_value_heads": one_of(1, 2, 4),
        "head_dim": one_of(16, 32),
        "rms_norm_eps": one_of(1e-5, 1e-6),
        "tie_word_embeddings": st.booleans(),
        "rope_theta": one_of(1_000_000.0, 30_000.0),
        "sliding_window": one_of(8, 16),
    }
    if family != "llama":
        types = st.lists(one_of(GLOBAL, SLIDING), min_size=layers, max_size=layers)
        optional["layer_types"] = types
    if family == "qwen3":
        optional |= {"use_sliding_window": st.booleans(), "max_window_layers": st.integers(0, 9)}
    if family == "gemma3_text":
        optional |= {"rope_local_base_freq": one_of(5_000.0), "sliding_window_pattern": one_of(2, 3, 6)}
    if family in ("llama", "qwen3"):
        optional |= {key: ropes(("default", "linear", "llama3")) for key in ("rope_scaling", "rope_parameters")}
        optional["max_position_embeddings"] = one_of(512, 4096)
    if family == "gemma3_text":
        optional["rope_scaling"] = ropes(("default", "linear"))
        optional["rope_parameters"] = st.fixed_dictionaries(
            {kind: ropes(("default", "linear")) for kind in (GLOBAL, SLIDING)}
        )
    if family == "gemma4_text":
        each = ropes(("default", "linear"), whole=True)
        nested = st.fixed_dictionaries(dict.fromkeys((GLOBAL, SLIDING), each))
        optional |= {"rope_scaling": nested, "rope_parameters": nested}
        optional |= {"global_head_dim": one_of(16, 64), "num_global_key_value_heads": one_of(1, 2)}
        optional |= {"attention_k_eq_v": st.booleans(), "hidden_size_per_layer_input": one_of(0, 8)}
    return config | {key: draw(how) for key, how in optional.items() if draw(st.booleans())}


OLD = "`rope_scaling` is deprecated"


def check_same(config: dict[str, Any], spec: DecoderSpec) -> None:
    theirs: Any = CLASSES[config["model_type"]](**{k: copy.deepcopy(v) for k, v in config.items() if k != "model_type"})
    assert (spec.vocab, spec.width, len(spec.layers)) == (
        theirs.vocab_size,
        theirs.hidden_size,
        theirs.num_hidden_layers,
    )
    assert (spec.norm_eps, spec.tied) == (theirs.rms_norm_eps, theirs.tie_word_embeddings)
    for i, layer in enumerate(spec.layers):
        own = theirs.per_layer_config[i] if config["model_type"] == "gemma4_text" else theirs
        kind = theirs.layer_types[i] if getattr(theirs, "layer_types", None) else GLOBAL
        head_dim = getattr(own, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
        found = (layer.heads, layer.kv_heads, layer.head_dim, layer.mlp_dim)
        assert found == (own.num_attention_heads, own.num_key_value_heads, head_dim, own.intermediate_size)
        assert layer.window == (own.sliding_window if kind == SLIDING else None)
        resolved = theirs.rope_parameters
        assert layer.rope == rope(resolved.get(kind, resolved), head_dim)


@pytest.mark.filterwarnings(f"ignore:{OLD}:FutureWarning")
@settings(max_examples=200, deadline=None)
@given(configs())
def test_every_spelling_means_what_transformers_makes_of_it(config: dict[str, Any]) -> None:
    check_same(config, spec_of(config))


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("layers", [1, 9, 10, 11, 26, 48, 101])
def test_configurations_that_transformers_saved_at_real_depths(tmp_path: Path, family: str, layers: int) -> None:
    """Gemma 4's per_layer_config has keys with zeros in front from 11 layers on."""
    small = {**SIZES, "num_hidden_layers": layers, "num_key_value_heads": 2, "head_dim": 16}
    CLASSES[family](**small).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    spec = read_spec(str(tmp_path))
    theirs: Any = CLASSES[family].from_pretrained(tmp_path)
    per_layer = getattr(theirs, "per_layer_config", None) if family == "gemma4_text" else None
    own = [per_layer[i] if per_layer is not None else theirs for i in range(layers)]
    assert [layer.head_dim for layer in spec.layers] == [each.head_dim for each in own]
    assert [layer.kv_heads for layer in spec.layers] == [each.num_key_value_heads for each in own]
    assert family != "gemma4_text" or layers < 11 or any(key[0] == "0" for key in saved["per_layer_config"])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope"])
def test_a_scaling_beside_the_parameters_is_refused_by_name(family: str, kind: str) -> None:
    flat = {"rope_type": "default", "rope_theta": 10_000.0}
    kept = {GLOBAL: flat, SLIDING: flat} if family == "gemma3_text" else flat
    config = {"model_type": family, **SIZES, "num_hidden_layers": 6, "num_key_value_heads": 2, "rope_parameters": kept}
    spec_of(config)
    with pytest.raises(UserError, match="rope scaling") as caught:
        spec_of(config | {"rope_scaling": {"rope_type": kind, "factor": 4.0}})
    assert kind in caught.value.where


@pytest.mark.parametrize(
    "overrides", [{"x": {}}, {"3": {}}, {"1": {}, "01": {}}, {"0": 3}, {"0": {"hidden_act": "relu"}}, {"²": {}}]
)
def test_layers_that_cannot_be_are_named(overrides: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        spec_of({"model_type": "gemma4_text", **SIZES, "num_hidden_layers": 3, "per_layer_config": overrides})
    assert "per_layer_config" in caught.value.where
