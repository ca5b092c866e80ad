"""The quantized export: what the serving stage loads from it is, bit for bit, what it makes of the merged model."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from common.errors import UserError
from convert.config import ConvertConfig, ConvertInputs
from convert.dry_run import lines
from convert.prepare import prepare
from convert.write.quantized_plan import FOLDER
from models.folder.inspect import describe
from models.folder.load import load_params
from models.quant.layout import Mode

MODES = pytest.mark.parametrize("mode", ["int8", "int4", pytest.param("nf4", marks=pytest.mark.slow)])


def same(a: Path, b: Path, mode: Mode | None) -> None:
    ours = load_params(str(a), "float32", False)[1]
    theirs = load_params(str(b), "float32", False, weights=mode)[1]
    assert ours.keys() == theirs.keys()
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, left), right in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, err_msg=str(path))


@MODES
@pytest.mark.parametrize("shard", ["1GB", "12KB"])
def test_round_trip_is_exact(make_base, make_adapter, convert, mode, shard):
    base = make_base(dtype="bfloat16", shard=shard)
    out, metrics = convert(base, make_adapter(base), quantize=mode)
    same(out / FOLDER, out / "model", mode)
    proof = json.loads((out / "certificate.json").read_text())
    assert proof["quantized"]["weights"] == mode and proof["quantized"]["tensors"] == metrics["quantized_tensors"] == 27
    assert 0 < proof["quantized"]["error_mean"] <= proof["quantized"]["error_max"] < (0.012 if mode == "int8" else 0.11)
    assert {f"{FOLDER}/config.json", f"{FOLDER}/tokenizer.json"} < proof["files"].keys()


def test_the_layout_is_the_documented_one(make_base, make_adapter, convert):
    base = make_base(dtype="bfloat16")
    out, _ = convert(base, make_adapter(base), quantize="int4")
    full, made = load_file(out / "model" / "model.safetensors"), load_file(out / FOLDER / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert full[name].shape == (32, 48)
    assert (made[name].dtype, made[name].shape) == (np.uint8, (32, 24))
    assert (made[f"{name}_scale"].dtype, made[f"{name}_scale"].shape) == (np.float32, (32, 3))
    groups = made[name].reshape(32, 3, 8)
    codes = np.concatenate([groups & 15, groups >> 4], axis=-1).astype(np.int8)
    widened = (np.where(codes > 7, codes - 16, codes) * made[f"{name}_scale"][..., None]).reshape(32, 48)
    assert np.linalg.norm(widened - full[name].astype(np.float32)) < 0.11 * np.linalg.norm(
        full[name].astype(np.float32)
    )
    assert made["model.embed_tokens.weight"].dtype == np.int8
    assert made["model.embed_tokens.weight_scale"].shape == (64, 1)
    norm = "model.layers.0.input_layernorm.weight"
    np.testing.assert_array_equal(made[norm].view(np.uint16), full[norm].view(np.uint16))
    about = json.loads((out / FOLDER / "config.json").read_text())
    layout = {"quant_method": "tapeout", "version": 1, "weights": "int4", "group_size": 32}
    assert about == {**json.loads((base / "config.json").read_text()), "quantization_config": layout}
    inspected = describe(out / FOLDER)
    assert (inspected["weights"], inspected["counts"]["used"]) == ("int4", len(made))
    assert not any("expected_shape" in tensor for tensor in inspected["tensors"])


def test_the_size_is_known_before(make_base, make_adapter, convert, tmp_path):
    base = make_base(dtype="bfloat16")
    adapter = make_adapter(base)
    config, inputs = ConvertConfig(quantize="int8"), ConvertInputs(base=str(base), adapter=str(adapter))
    work = prepare(config, inputs)
    assert any(line.startswith("quantized    int8") for line in lines(config, inputs, tmp_path, work))
    out, _ = convert(base, adapter, quantize="int8")
    written = sum(p.stat().st_size for p in out.rglob("*") if p.is_file() and p.suffix == ".safetensors")
    assert written == pytest.approx(work.bytes, rel=0.1)
    full, small = (out / name / "model.safetensors" for name in ("model", FOLDER))
    assert small.stat().st_size < 0.8 * full.stat().st_size


def test_a_damaged_export_is_told_by_tensor(make_base, make_adapter, convert):
    base = make_base()
    out, _ = convert(base, make_adapter(base), quantize="int8")
    path = out / FOLDER / "model.safetensors"
    content = path.read_bytes()
    lost = content.replace(b"model.layers.1.mlp.up_proj.weight_scale", b"model.layers.1.mlp.up_proj.weight_scalx")
    path.write_bytes(lost)
    with pytest.raises(UserError, match="missing from the checkpoint") as caught:
        load_params(str(out / FOLDER), "float32", False)
    assert caught.value.where == "model.layers.1.mlp.up_proj.weight_scale"
    path.write_bytes(content)
    with pytest.raises(UserError, match="training starts from full weights, these are int8"):
        load_params(str(out / FOLDER), "float32", True)
    with pytest.raises(UserError, match="cannot be changed"):
        convert(out / FOLDER, out / "adapter", "again")
