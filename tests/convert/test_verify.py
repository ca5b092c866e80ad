"""The certificate's proof by running: what it measures, what it refuses, and that it claims nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from common.errors import UserError
from convert.config import ConvertConfig, ConvertInputs
from convert.stage import run

PROMPT = [2, 7, 11, 13, 17, 19, 23, 29, 31, 37]


@pytest.fixture
def proved(make_base, make_adapter, tmp_path):
    def call(dtype: str = "bfloat16", prompts: list[list[int]] | None = None, size: float = 0.1, **config):
        base = make_base(dtype=dtype)
        data, out = tmp_path / "data", tmp_path / "proved"
        for folder in (data, out):
            folder.mkdir(exist_ok=True)
        probes = [{"ids": ids} for ids in ([PROMPT, PROMPT[::-1][:4]] if prompts is None else prompts)]
        (data / "dataset.json").write_text(json.dumps({"probes": probes}))
        adapter = make_adapter(base, size=size)
        inputs = ConvertInputs(base=str(base), adapter=str(adapter), probes=str(data))
        metrics = run(ConvertConfig(**config), inputs, out)
        return base, out, metrics, json.loads((out / "certificate.json").read_text())

    return call


def logits(folder: Path, dtype: str = "float32", **changed: torch.Tensor) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    model.load_state_dict({name.replace("/", "."): tensor for name, tensor in changed.items()}, strict=False)
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0].float().numpy()


def test_float32_merge_does_not_diverge_and_bfloat16_does_a_little(proved):
    _, _, exact, proof = proved("float32")
    assert proof["verified"]["measured"] and proof["verified"]["why_not"] is None
    assert (proof["verified"]["prompts"], proof["verified"]["tokens"]) == (2, 14)
    assert 0 <= exact["kl_mean"] <= exact["kl_max"] < 1e-9
    _, _, rounded, _ = proved("bfloat16")
    assert 1e-9 < rounded["kl_mean"] < 0.01


def test_effect_of_a_target_is_the_logits_movement_when_it_alone_is_merged(proved):
    base, out, _, proof = proved("float32")
    row = next(row for row in proof["targets"] if (row["target"], row["layer"]) == ("o", 2))
    name = "model.layers.2.self_attn.o_proj.weight"
    alone: dict[str, Any] = {name.replace(".", "/"): load_file(out / "model" / "model.safetensors")[name]}
    moved = logits(base, **alone) - logits(base)
    assert row["effective"] == pytest.approx(np.sqrt(np.mean(moved**2)), rel=1e-3)
    assert all(row["effective"] > 0 and not row["flags"] for row in proof["targets"])


def test_divergence_above_the_limit_fails_the_stage(proved, tmp_path):
    with pytest.raises(UserError, match="diverges from base") as caught:
        proved("bfloat16", size=0.5, max_kl=1e-12)
    assert "convert.max_kl" in caught.value.where
    assert not (tmp_path / "proved" / "certificate.json").exists()


def test_an_update_that_the_cast_swallows_is_flagged(proved):
    _, _, _, proof = proved("bfloat16", size=1e-5)
    assert {"lost in the cast"} == {flag for row in proof["targets"] for flag in row["flags"]}


def test_switched_off_it_claims_nothing(proved):
    _, _, metrics, proof = proved(verify="off")
    assert proof["verified"] == {
        "measured": False,
        "why_not": "convert.verify is off",
        "kl_mean": None,
        "kl_max": None,
        "tokens": 0,
        "prompts": 0,
    }
    assert metrics["kl_mean"] is None and all(row["effective"] is None for row in proof["targets"])


def test_on_without_prompts_is_refused_and_auto_says_why(proved):
    with pytest.raises(UserError, match="has no prompts"):
        proved(prompts=[], verify="on")
    _, _, _, proof = proved(prompts=[])
    assert proof["verified"]["why_not"] == "the data artifact has no prompts"


def test_prompts_of_another_vocabulary_are_refused(proved):
    with pytest.raises(UserError, match="ids that the model does not have"):
        proved(prompts=[[1, 64]])
