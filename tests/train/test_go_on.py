"""Training that goes on from a PEFT adapter: the same function at the start, and convertible at the end."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from convert.config import ConvertConfig, ConvertInputs
from convert.stage import run
from tests.models.adapters.test_peft import DOT, NAMED, add_zeros, respell
from tests.train.conftest import log_lines
from tests.train.test_stage import Job, Start, finish

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def load(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype="float32").eval()


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """As other tools write it: an A for k and one for v, ranks of their own, a layer left out on purpose."""
    options: dict[str, Any] = {"rank_pattern": {"o_proj": 3}, "layers_to_transform": [0, 1]}
    options["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]
    adapted = peft.get_peft_model(load(base), peft.LoraConfig(r=2, lora_alpha=6, **options))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.05)
    adapted.save_pretrained(str(tmp_path / "theirs"))
    return tmp_path / "theirs"


def merge(base: Path, adapter: Path, out: Path) -> dict[str, np.ndarray]:
    out.mkdir()
    run(ConvertConfig(), ConvertInputs(base=str(base), adapter=str(adapter)), out)
    return load_file(out / "model" / "model.safetensors")


def test_a_foreign_adapter_goes_on(job: Job, start: Start, base: Path, adapter: Path, tmp_path: Path) -> None:
    """At a learning rate of next to nothing it stays what it was, through training, merging and exporting; its keys are
    spelled otherwise, and it has an update of nothing."""
    spelled = Path(shutil.copytree(adapter, tmp_path / "spelled"))
    add_zeros(spelled, "model.vision_tower.layers.0.q_proj")
    respell(spelled, lambda key: key.removeprefix("base_model.model.").replace(DOT, NAMED))
    path, out = job("still", adapter=str(spelled), lora={}, learning_rate=1e-12, steps=2)
    said = finish(start(path))
    assert "going on from" in said and "train.lora's are not used: rank 16; alpha 32.0" in said
    want = merge(base, adapter, tmp_path / "before")
    got = merge(base, out, tmp_path / "after")
    assert want.keys() == got.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-6, err_msg=name)
    plain = load_file(base / "model.safetensors")
    assert any(np.abs(want[name] - plain[name]).max() > 1e-3 for name in want)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        ours = peft.PeftModel.from_pretrained(load(base), tmp_path / "after" / "adapter")(input_ids=ids).logits
        theirs = peft.PeftModel.from_pretrained(load(base), adapter)(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_our_own_export_goes_on_where_it_stopped(job: Job, start: Start, base: Path, tmp_path: Path) -> None:
    first, first_out = job("first", learning_rate=0.02)
    finish(start(first))
    merge(base, first_out, tmp_path / "exported")
    more, more_out = job("more", adapter=str(tmp_path / "exported" / "adapter"), learning_rate=0.02, lora={})
    finish(start(more))
    before, after = log_lines(first_out), log_lines(more_out)
    assert after[0]["loss"] < before[0]["loss"], "not from the start again"
    merge(base, more_out, tmp_path / "again")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rank": 8}}, "the adapter has rank 2, the recipe asks for another"),
        ({"lora": {"targets": ["q"]}}, "the adapter has targets"),
        ({"method": "full"}, "an adapter goes on as an adapter"),
    ],
)
def test_what_contradicts_the_adapter_is_said(
    job: Job, start: Start, adapter: Path, changes: dict[str, Any], message: str
) -> None:
    path, _ = job("wrong", **{"adapter": str(adapter), "lora": {}, **changes})
    err = finish(start(path), code=2)
    assert message in err and "Traceback" not in err
