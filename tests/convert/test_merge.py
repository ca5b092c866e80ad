"""The merged weights against independent arithmetic, transformers and PEFT."""

import json
import warnings
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from models.text.day import NOTE, note_of, noted_day

SHAPES = pytest.mark.parametrize("k_eq_v", [True, False])
PREFIX = "model.layers."
# PEFT 0.21 asks transformers 5.23 a question under its old name: nothing to do with the adapter.
OLD_NAME = "`is_gradient_checkpointing` is deprecated"
pytestmark = pytest.mark.filterwarnings(f"ignore:{OLD_NAME}:FutureWarning")


def logits(model: torch.nn.Module) -> np.ndarray:
    tokens = torch.arange(40).reshape(2, 20) % 64
    with torch.no_grad():
        return model(tokens).logits.float().numpy()


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


def expected_deltas(arrays: dict[str, np.ndarray], k_eq_v: bool) -> dict[str, np.ndarray]:
    """alpha / rank * A @ B of every HF tensor, each projection's layout written out by hand."""
    out = {}
    for kind, layers in (("sliding", (0, 1)), ("global", (2, 3))):
        half = {key.removeprefix(f"{kind}."): value for key, value in arrays.items() if key.startswith(kind)}
        for i, layer in enumerate(layers):
            a, b = (
                {key[:-7]: value[i] for key, value in half.items() if key.endswith(x)} for x in ("lora_a", "lora_b")
            )
            at = f"{PREFIX}{layer}."
            out[at + "self_attn.q_proj.weight"] = np.einsum("dr,rnh->nhd", a["q"], b["q"]).reshape(-1, 32)
            out[at + "self_attn.o_proj.weight"] = np.einsum("nhr,rd->dnh", a["o"], b["o"]).reshape(32, -1)
            out[at + "mlp.down_proj.weight"] = np.einsum("fr,rd->df", a["down"], b["down"])
            if kind == "global" and k_eq_v:
                out[at + "self_attn.k_proj.weight"] = np.einsum("dr,rkh->khd", a["kv"], b["kv"]).reshape(-1, 32)
            else:
                keys, values = np.einsum("dr,rskh->skhd", a["kv"], b["kv"])
                out[at + "self_attn.k_proj.weight"] = keys.reshape(-1, 32)
                out[at + "self_attn.v_proj.weight"] = values.reshape(-1, 32)
            gate, up = np.einsum("dr,rsf->sfd", a["gate_up"], b["gate_up"])
            out[at + "mlp.gate_proj.weight"], out[at + "mlp.up_proj.weight"] = gate, up
    return {name: 2.0 * delta for name, delta in out.items()}


@SHAPES
@pytest.mark.parametrize(("dtype", "shard"), [("bfloat16", "1GB"), ("bfloat16", "12KB"), ("float32", "12KB")])
def test_every_tensor_is_a_float32_merge_rounded_once(
    make_base, make_adapter, arrays_of, convert, k_eq_v, dtype, shard
):
    base = make_base(dtype=dtype, shard=shard, attention_k_eq_v=k_eq_v)
    adapter = make_adapter(base, exact=True)
    out, metrics = convert(base, adapter)
    deltas = expected_deltas(arrays_of(adapter), k_eq_v)
    before, after = tensors(base), tensors(out / "model")
    assert list(before) == list(after)
    assert set(deltas) < set(before)
    assert (metrics["tensors"], metrics["merged"]) == (len(before), len(deltas)) and metrics["merged"] == (
        26 if k_eq_v else 28
    )
    for name, old in before.items():
        expected = old.float() + torch.from_numpy(deltas[name]).float() if name in deltas else old.float()
        assert torch.equal(after[name], expected.to(old.dtype)), name
        assert (name in deltas) != torch.equal(after[name], old), name


@pytest.mark.parametrize("shard", ["1GB", "12KB"])
def test_everything_else_is_carried_through_byte_for_byte(make_base, make_adapter, convert, shard):
    base = make_base(dtype="bfloat16", shard=shard)
    out, _ = convert(base, make_adapter(base))
    names = {p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file()}
    weights = {name for name in names if name.endswith(".safetensors")}
    assert (len(weights) > 1) == (shard == "12KB")
    written = {p.relative_to(out / "model").as_posix() for p in (out / "model").rglob("*") if p.is_file()}
    assert written == names
    for name in written - weights:
        assert (out / "model" / name).read_bytes() == (base / name).read_bytes(), name
    assert json.loads((out / "certificate.json").read_text())["left_out"] == []


def test_the_day_that_the_data_showed_is_noted_with_whatever_is_written(make_base, make_adapter, convert):
    base = make_base()
    (base / NOTE).write_bytes(note_of("2001-02-03"))
    adapter = make_adapter(base)
    undated, _ = convert(base, adapter, "undated")
    assert noted_day(undated / "model") == "2001-02-03", "the base's own"
    about = json.loads((adapter / "adapter.json").read_text())
    (adapter / "adapter.json").write_text(json.dumps(about | {"date": "2024-02-29"}))
    out, _ = convert(base, adapter)
    again, _ = convert(base, out / "adapter", "again")
    folders = (out / "model", out / "adapter", again / "model", again / "adapter")
    assert [noted_day(folder) for folder in folders] == ["2024-02-29"] * 4
    convert(base, adapter)  # over its own files


@SHAPES
def test_merged_model_equals_base_with_the_exported_adapter(make_base, make_adapter, convert, k_eq_v):
    base = make_base(attention_k_eq_v=k_eq_v)
    out, _ = convert(base, make_adapter(base))
    merged = logits(load(out / "model"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", OLD_NAME, FutureWarning)
        adapted = peft.PeftModel.from_pretrained(load(base), out / "adapter").eval()
    assert np.abs(merged - logits(load(base))).max() > 0.01
    np.testing.assert_allclose(merged, logits(adapted), atol=1e-5)
    np.testing.assert_allclose(merged, logits(adapted.merge_and_unload()), atol=1e-5)


def test_exported_adapter_has_one_pair_per_tensor_and_repeats_a_shared_a(make_base, make_adapter, convert):
    base = make_base()
    out, _ = convert(base, make_adapter(base))
    halves = load_file(out / "adapter" / "adapter_model.safetensors")
    modules = {key.split(".lora_")[0].removeprefix("base_model.model.model.layers.") for key in halves}
    attention, mlp = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    assert modules == {
        *(
            f"{layer}.self_attn.{p}"
            for layer in range(4)
            for p in attention
            if (layer, p) not in ((2, "v_proj"), (3, "v_proj"))
        ),
        *(f"{layer}.mlp.{p}" for layer in range(4) for p in mlp),
    }
    key = "base_model.model.model.layers.{}.{}.lora_{}.weight"
    assert torch.equal(halves[key.format(0, "self_attn.k_proj", "A")], halves[key.format(0, "self_attn.v_proj", "A")])
    assert not torch.equal(
        halves[key.format(0, "self_attn.k_proj", "B")], halves[key.format(0, "self_attn.v_proj", "B")]
    )
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted((*attention, *mlp))
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8, "CAUSAL_LM")


@pytest.mark.parametrize(
    "how", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"1.mlp.up_proj": 64}}]
)
def test_adapters_that_peft_wrote_merge_as_peft_merges_them(make_base, convert, tmp_path, how):
    base = make_base()
    config = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=["q_proj", "up_proj", "v_proj"], task_type="CAUSAL_LM", **how
    )
    torch.manual_seed(3)
    adapted = peft.get_peft_model(load(base), config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(tmp_path / "theirs")
    out, metrics = convert(base, tmp_path / "theirs")
    assert metrics["merged"] == 4 + 4 + 2
    expected = adapted.eval().merge_and_unload()
    np.testing.assert_allclose(logits(load(out / "model")), logits(expected), atol=1e-5)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (out / "adapter" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    missing = json.loads((out / "certificate.json").read_text())["missing"]
    assert {"target": "gate_up", "layer": 0, "tensor": "model.layers.0.mlp.gate_proj.weight"} in missing


def test_the_last_step_is_merged_unless_another_is_named(make_base, make_adapter, convert):
    base = make_base()
    adapter = make_adapter(base, steps=(3, 7))
    last, metrics = convert(base, adapter, "last")
    named, _ = convert(base, adapter, "named", step=7)
    first, metrics_of_first = convert(base, adapter, "first", step=3)
    assert (metrics["step"], metrics_of_first["step"]) == (7, 3)
    content = [(out / "model" / "model.safetensors").read_bytes() for out in (last, named, first)]
    assert content[0] == content[1] != content[2]


def test_export_can_be_left_out(make_base, make_adapter, convert):
    base = make_base()
    out, _ = convert(base, make_adapter(base), peft=False)
    assert sorted(p.name for p in out.iterdir()) == ["certificate.json", "model"]
    assert not any(row["exported"] for row in json.loads((out / "certificate.json").read_text())["targets"])


def test_tensors_outside_the_decoder_are_carried_and_not_targeted_by_the_export(make_base, make_adapter, convert):
    base = make_base(dtype="bfloat16")
    others = {
        "vision.layers.0.self_attn.q_proj.weight": torch.randn(4, 4),
        "vision.scale": torch.arange(6, dtype=torch.int8),
        "vision.none": torch.zeros(0, 3),
    }
    save_file({**load_file(base / "model.safetensors"), **others}, base / "model.safetensors", {"format": "pt"})
    out, _ = convert(base, make_adapter(base))
    written = load_file(out / "model" / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in others.items())
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == 26 and "model.layers.0.self_attn.q_proj" in config["target_modules"]
