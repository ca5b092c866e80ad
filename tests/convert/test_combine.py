"""Several checkpoints in one: the merged update is the weighted sum of theirs. And shards of another size."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from common.errors import UserError
from convert.config import ConvertConfig, ConvertInputs
from convert.dry_run import preview


def weights(out) -> dict[str, torch.Tensor]:
    return {name: t for file in (out / "model").glob("*.safetensors") for name, t in load_file(file).items()}


@pytest.mark.parametrize(
    ("how", "factors"),
    [
        ({"checkpoints": "last 2"}, {5: 0.5, 7: 0.5}),
        ({"checkpoints": [3, 7], "weights": [-0.5, 2.0]}, {3: -0.5, 7: 2.0}),
    ],
)
def test_updates_of_checkpoints_are_summed(make_base, make_adapter, convert, how, factors):
    base = make_base()
    adapter = make_adapter(base, steps=(3, 5, 7))
    before = load_file(base / "model.safetensors")
    single = {step: weights(convert(base, adapter, f"at{step}", step=step)[0]) for step in factors}
    out, metrics = convert(base, adapter, "mixed", **how)
    for name, tensor in weights(out).items():
        expected = before[name] + sum(factor * (single[step][name] - before[name]) for step, factor in factors.items())
        np.testing.assert_allclose(tensor, expected, atol=2e-6, err_msg=name)
    proof = json.loads((out / "certificate.json").read_text())
    assert proof["checkpoints"] == {str(step): factor for step, factor in factors.items()}
    assert (proof["rank"], proof["alpha"], metrics["step"]) == (8, 16.0, 7)
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["r"] == 8


def test_more_checkpoints_than_there_are(make_base, make_adapter, convert):
    base = make_base()
    with pytest.raises(UserError, match="there are 2 checkpoints, not 3"):
        convert(base, make_adapter(base, steps=(3, 7)), checkpoints="last 3")


@pytest.mark.parametrize(
    "bad",
    [
        {"step": 3, "checkpoints": "last 2"},
        {"weights": [1.0]},
        {"checkpoints": "last 2", "weights": [1.0]},
        {"checkpoints": "first 2"},
        {"checkpoints": [7, 3]},
        {"max_shard_size": "large"},
    ],
)
def test_configurations_that_make_no_sense(bad):
    with pytest.raises(ValidationError):
        ConvertConfig.model_validate(bad)


@pytest.mark.parametrize("shard", ["1GB", "12KB"])
def test_shards_of_another_size_hold_the_same_tensors(make_base, make_adapter, convert, shard):
    base = make_base(dtype="bfloat16", shard=shard)
    adapter = make_adapter(base)
    same, _ = convert(base, adapter, "same")
    out, _ = convert(base, adapter, max_shard_size="20KB")
    files = sorted((out / "model").glob("*.safetensors"))
    assert len(files) > 1 and all(file.stat().st_size < 25_000 for file in files)
    index = json.loads((out / "model" / "model.safetensors.index.json").read_text())
    ours, theirs = weights(out), weights(same)
    assert ours.keys() == theirs.keys() == index["weight_map"].keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    loaded: Any = AutoModelForCausalLM.from_pretrained(out / "model", output_loading_info=True)
    info = loaded[1]
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_dry_run_tells_what_the_stage_then_does_and_writes_nothing(make_base, make_adapter, convert, tmp_path):
    base = make_base(shard="12KB")
    adapter = make_adapter(base, steps=(3, 7))
    inputs = ConvertInputs(base=str(base), adapter=str(adapter)).model_dump()
    job = {"config": {"checkpoints": "last 2"}, "inputs": inputs, "out": str(tmp_path / "never" / "there")}
    told = preview(job)
    assert not (tmp_path / "never").exists()
    out, metrics = convert(base, adapter, checkpoints="last 2")
    shards = [line.split()[1].rstrip(":") for line in told.splitlines() if line.startswith("shard")]
    assert shards == sorted(file.name for file in (out / "model").glob("*.safetensors"))
    assert f"{0.5:g} x step 3 + 0.5 x step 7, rank 8: {metrics['merged']} tensors" in told
    with pytest.raises(UserError, match="no checkpoint of step 5"):
        preview({**job, "config": {"step": 5}})
