"""What a user can get wrong: each is told in one UserError that names the place, and nothing is left half-written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from common.errors import UserError


@pytest.fixture
def fails(convert, tmp_path):
    def call(base: Path, adapter: Path, match: str, where: str, **config) -> None:
        before = {p: p.read_bytes() for p in base.rglob("*") if p.is_file()}
        with pytest.raises(UserError, match=match) as caught:
            convert(base, adapter, **config)
        assert where in caught.value.where and caught.value.fix
        assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
        assert before == {p: p.read_bytes() for p in base.rglob("*") if p.is_file()}

    return call


def edit(path: Path, **changes) -> None:
    about = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in about.items() if value is not None}))


def test_base_that_changed_since_training(make_base, make_adapter, fails):
    base = make_base()
    adapter = make_adapter(base)
    content = bytearray((base / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (base / "model.safetensors").write_bytes(content)
    fails(base, adapter, "another base", str(base))


def test_missing_step_names_those_there(make_base, make_adapter, fails):
    base = make_base()
    fails(base, make_adapter(base, steps=(3, 7)), "no checkpoint of step 5", "checkpoints", step=5)


@pytest.mark.parametrize("folder", ["checkpoints", "checkpoints/7"])
def test_absent_checkpoint(make_base, make_adapter, fails, folder):
    base = make_base()
    adapter = make_adapter(base)
    shutil.rmtree(adapter / folder)
    fails(base, adapter, "no finished checkpoint", "checkpoints")


def test_checkpoint_cut_off(make_base, make_adapter, fails):
    base = make_base()
    adapter = make_adapter(base)
    files = [p for p in (adapter / "checkpoints" / "7" / "trained").rglob("*") if p.parent.name == "d"]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    fails(base, adapter, "damaged or incomplete", "checkpoints/7")


def test_checkpoint_without_its_data(make_base, make_adapter, fails):
    base = make_base()
    adapter = make_adapter(base)
    shutil.rmtree(adapter / "checkpoints" / "7" / "trained")
    fails(base, adapter, "damaged or incomplete", "checkpoints/7")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_delta_that_is_not_finite_is_named(make_base, make_adapter, arrays_of, rewrite, fails, bad):
    base = make_base()
    adapter = make_adapter(base)
    arrays = {key: value.copy() for key, value in arrays_of(adapter).items()}
    arrays["sliding.gate_up.lora_b"][1, 0, 1, 3] = bad
    rewrite(adapter, arrays)
    fails(base, adapter, "NaN or infinity", "model.layers.1.mlp.up_proj.weight")


def test_layer_that_was_never_trained_is_named(make_base, make_adapter, arrays_of, rewrite, fails):
    base = make_base()
    adapter = make_adapter(base)
    arrays = {key: value.copy() for key, value in arrays_of(adapter).items()}
    arrays["global.kv.lora_b"][1] = 0
    rewrite(adapter, arrays)
    fails(base, adapter, "never trained", "model.layers.3.self_attn.k_proj.weight")


def test_target_without_parameters(make_base, make_adapter, arrays_of, rewrite, fails):
    base = make_base()
    adapter = make_adapter(base)
    rewrite(adapter, {key: value for key, value in arrays_of(adapter).items() if not key.startswith("sliding.o.")})
    fails(base, adapter, "lacks this parameter", "sliding.o.lora_a")


def test_parameter_without_target(make_base, make_adapter, fails):
    base = make_base()
    adapter = make_adapter(base)
    edit(adapter / "adapter.json", targets=["q", "kv", "o", "gate_up"])
    fails(base, adapter, "no place in the base", "global.down.lora_a")


def test_target_that_the_base_does_not_have(make_base, make_adapter, fails):
    base = make_base()
    adapter = make_adapter(base)
    edit(adapter / "adapter.json", targets=["q", "router"])
    fails(base, adapter, "no such target", "router")


def test_adapter_of_a_model_of_another_shape(make_base, make_adapter, fails):
    adapter = make_adapter(make_base("theirs", hidden_size=64))
    fails(make_base(), adapter, r"shape \[2, 64, 4\], the base needs \[2, 32, 4\]", "sliding.q.lora_a")


@pytest.mark.parametrize("key", ["method", "rank", "alpha", "targets", "base_digest"])
def test_metadata_that_lacks_a_key(make_base, make_adapter, fails, key):
    base = make_base()
    adapter = make_adapter(base)
    edit(adapter / "adapter.json", **{key: None})
    fails(base, adapter, key, "adapter.json")


def test_folder_that_is_no_adapter(make_base, tmp_path, fails):
    fails(make_base(), tmp_path / "nothing", "neither adapter.json nor adapter_config.json", "nothing")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_base_file_cut_off(make_base, make_adapter, fails, dtype):
    base = make_base(dtype=dtype)
    adapter = make_adapter(base)
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[:-10])
    fails(base, adapter, "not a whole safetensors file", "model.safetensors")


def test_base_shard_missing(make_base, make_adapter, fails):
    base = make_base(shard="12KB")
    adapter = make_adapter(base)
    gone = sorted(base.glob("*.safetensors"))[1]
    gone.unlink()
    fails(base, adapter, f"missing: {gone.name}", "model.safetensors.index.json")


def test_base_of_weights_in_another_type(make_base, make_adapter, fails):
    base = make_base()
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content.replace(b'"F32"', b'"I32"'))
    fails(base, make_adapter(base), "type I32 cannot be changed", "model.layers.0.mlp.down_proj.weight")


@pytest.fixture
def theirs(make_base, make_adapter, convert, tmp_path):
    """A PEFT adapter, and its base."""
    base = make_base()
    out, _ = convert(base, make_adapter(base), "exported")
    return base, out / "adapter"


@pytest.mark.parametrize(
    ("change", "match", "where"),
    [
        ({"use_dora": True}, "not supported", "use_dora"),
        ({"bias": "all"}, "not supported", "bias"),
        ({"modules_to_save": ["lm_head"]}, "not supported", "modules_to_save"),
        ({"peft_type": "IA3"}, "type IA3", "adapter_config.json"),
        ({"r": 16}, "rank 4 and 4 here, 16", "lora_A"),
        ({"r": None}, "a rank is a whole number", "adapter_config.json: r"),
    ],
)
def test_peft_adapters_that_cannot_be_merged(theirs, fails, change, match, where):
    base, adapter = theirs
    edit(adapter / "adapter_config.json", **change)
    fails(base, adapter, match, where)


def test_peft_adapter_of_another_shape(theirs, make_base, fails):
    fails(make_base("wider", hidden_size=64), theirs[1], "the base's tensor", "model.layers.0.mlp.down_proj.weight")


def test_peft_adapter_of_a_deeper_model(theirs, make_base, fails):
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    fails(make_base("shallow", **layers), theirs[1], "no such tensor|base's tensor", "model.layers.")


def test_peft_file_cut_off(theirs, fails):
    base, adapter = theirs
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    fails(base, adapter, "not a whole safetensors file", "adapter_model.safetensors")


@pytest.mark.parametrize("how", [{}, {"partial": True}, {"layers_to_transform": [0, 1, 3]}])
def test_layer_that_a_pattern_missed(theirs, fails, convert, how):
    base, adapter = theirs
    path = adapter / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if ".2.mlp.down_proj" not in name}
    save_file(kept, path)
    if how == {}:
        fails(base, adapter, "leaves out a layer", "model.layers.2.mlp.down_proj.weight")
        return
    config = how if "partial" in how else {}
    edit(adapter / "adapter_config.json", **({} if config else how))
    out, metrics = convert(base, adapter, **config)
    missing = json.loads((out / "certificate.json").read_text())["missing"]
    assert [row["tensor"] for row in missing] == ["model.layers.2.mlp.down_proj.weight"] and metrics["missing"] == 1
