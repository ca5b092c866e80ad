"""Method `full`: trained parameters in our layout become the HF tensors that they came from."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from common.digests.model import base_digest
from common.errors import UserError
from models.families import read_spec, rows
from models.leaf import from_hf
from models.weights.files import WeightFiles


@pytest.fixture
def make_full(make_base, rewrite, tmp_path):
    """Another random model of the same shape as the base, as the train stage would leave it."""

    def make(base: Path, dtype: str = "float32") -> tuple[Path, Path]:
        other = make_base("other", dtype=dtype, seed=5)
        folder = tmp_path / "adapter"
        read = WeightFiles(str(other)).read
        arrays = {leaf.path: from_hf(leaf, read) for leaf in rows(read_spec(str(other)), stacked=True)}
        rewrite(folder, {path: array.astype(np.float32) for path, array in arrays.items()})
        digest = base_digest(base) if list(base.glob("*.safetensors")) else None
        (folder / "adapter.json").write_text(json.dumps({"method": "full", "base_digest": digest, "step": 8}))
        return folder, other

    return make


@pytest.mark.parametrize("shard", ["1GB", "12KB"])
def test_with_base_weights_the_base_plan_and_type_are_kept(make_base, make_full, convert, shard):
    base = make_base(dtype="bfloat16", shard=shard)
    adapter, other = make_full(base)
    out, metrics = convert(base, adapter)
    names = sorted(p.name for p in base.iterdir())
    assert sorted(p.name for p in (out / "model").iterdir()) == names
    trained = load_file(other / "model.safetensors")
    written = {name: t for file in (out / "model").glob("*.safetensors") for name, t in load_file(file).items()}
    assert written.keys() == trained.keys() and metrics["merged"] == len(trained)
    assert all((written[name] == t.bfloat16()).all() for name, t in trained.items())
    assert not (out / "adapter").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_base_weights_the_configuration_gives_the_type(make_base, make_full, convert, dtype):
    base = make_base(dtype=dtype)
    (base / "model.safetensors").unlink()
    adapter, other = make_full(base, dtype)
    out, _ = convert(base, adapter)
    loaded: Any = AutoModelForCausalLM.from_pretrained(out / "model", dtype="auto", output_loading_info=True)
    model, info = loaded
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    trained = load_file(other / "model.safetensors")
    state = model.state_dict()
    assert all(state[name].dtype == t.dtype and (state[name] == t).all() for name, t in trained.items())
    assert (out / "model" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_a_parameter_with_nan_is_named(make_base, make_full, convert, arrays_of, rewrite, tmp_path):
    base = make_base()
    adapter, _ = make_full(base)
    arrays = arrays_of(adapter, 8)
    arrays["global.o"] = arrays["global.o"].copy()
    arrays["global.o"][1, 0, 0, 0] = np.nan
    shutil.rmtree(adapter / "checkpoints")
    rewrite(adapter, arrays)
    with pytest.raises(UserError, match="NaN") as caught:
        convert(base, adapter)
    assert caught.value.where == "model.layers.3.self_attn.o_proj.weight"
    assert not list((tmp_path / "out").rglob("*.safetensors*"))
