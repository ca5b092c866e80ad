"""Every family, merged and exported: against PEFT's own merge, against arithmetic, and as `transformers` completes."""

import copy
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file

from convert.config import ConvertConfig, ConvertInputs
from convert.stage import run
from models.families import read_spec, rows
from models.leaf import peft_pair
from models.weights.files import WeightFiles
from tests.convert.conftest import write_adapter
from tests.models.families import FAMILIES, build

# PEFT 0.21 asks transformers 5.23 a question under its old name: nothing to do with the adapter.
OLD_NAME = "`is_gradient_checkpointing` is deprecated"
pytestmark = pytest.mark.filterwarnings(f"ignore:{OLD_NAME}:FutureWarning")
CLOSE = 1e-5
ROUNDED = 5e-5
"""Between a merged model and an adapter beside its base: a float32 merge rounds weights, nine layers amplify it."""
SCALE = 2.0
LIKE_ANOTHER = {"gemma3 multimodal", "llama tied"}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_ANOTHER else []) for name in FAMILIES]
PROMPT = torch.tensor([[5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43]])


class Case(NamedTuple):
    kind: type
    """transformers' class of the model."""
    base: Path
    adapter: Path
    out: Path


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Case]:
    """A family's base, a trained adapter of all its products, and both converted."""

    @cache
    def make(name: str, dtype: str) -> Case:
        model = build(name).to(getattr(torch, dtype))
        place = tmp_path_factory.mktemp("merged")
        base, adapter, out = place / "base", place / "adapter", place / "out"
        model.save_pretrained(base, max_shard_size="20KB" if dtype == "bfloat16" else "1GB")
        write_adapter(adapter, base, (7,), exact=dtype == "bfloat16", size=0.1)
        out.mkdir()
        run(ConvertConfig(), ConvertInputs(base=str(base), adapter=str(adapter)), out)
        return Case(type(model), base, adapter, out)

    return make


def load(kind: Any, folder: Path) -> Any:
    """The model in float32. Fails where the folder lacks a tensor, or has one that the model does not know."""
    plain = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model, info = kind.from_pretrained(folder, dtype="float32", output_loading_info=True, **plain)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


def logits(model: Any) -> np.ndarray:
    """Computed in float64: float32 weights are compared, and the nine layers of E2B turn a last bit into 2e-5."""
    model = copy.deepcopy(model).double()
    tokens = torch.from_numpy(np.random.default_rng(0).integers(3, 90, (2, 20)))
    with torch.no_grad():
        return model(input_ids=tokens).logits.numpy()


def completion(model: Any) -> list[int]:
    with torch.no_grad():
        made = model.generate(input_ids=PROMPT, do_sample=False, max_new_tokens=12, min_new_tokens=12, pad_token_id=0)
    return made[0].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_merged_model_equals_what_peft_merges_and_completes_alike(case: Callable[..., Case], name: str) -> None:
    made = case(name, "float32")
    merged = load(made.kind, made.out / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", OLD_NAME, FutureWarning)
        adapted = peft.PeftModel.from_pretrained(load(made.kind, made.base), made.out / "adapter").eval()
    ours = logits(merged)
    assert 0.3 < ours.std() < 30, "logits of order one"
    assert np.abs(ours - logits(load(made.kind, made.base))).max() > 0.05, "the adapter does something"
    np.testing.assert_allclose(logits(adapted), ours, atol=ROUNDED)
    text = completion(merged)
    assert text == completion(adapted) and len(text) == PROMPT.shape[1] + 12
    np.testing.assert_allclose(logits(adapted.merge_and_unload()), ours, atol=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_in_bfloat16_every_tensor_is_the_float32_merge_rounded_once(
    case: Callable[..., Case], arrays_of: Callable[..., dict[str, np.ndarray]], name: str
) -> None:
    made = case(name, "bfloat16")
    arrays = arrays_of(made.adapter)
    deltas: dict[str, np.ndarray] = {}
    for leaf in rows(read_spec(str(made.base)), stacked=True):
        if f"{leaf.path}.lora_a" in arrays:
            for tensor, index in leaf.index():
                a, b = peft_pair(leaf, index, arrays[f"{leaf.path}.lora_a"], arrays[f"{leaf.path}.lora_b"])
                deltas[tensor] = np.float32(SCALE) * (b @ a)
    before, after = WeightFiles(str(made.base)), WeightFiles(str(made.out / "model"))
    assert list(before.where) == list(after.where) and set(deltas) < set(before.where)
    for tensor in before.where:
        old, new = before.read(tensor), after.read(tensor)
        if tensor in deltas:
            expected = (old.astype(np.float32) + deltas[tensor]).astype(ml_dtypes.bfloat16)
            assert np.array_equal(new.view(np.uint16), expected.view(np.uint16)), tensor
            assert not np.array_equal(new.view(np.uint16), old.view(np.uint16)), tensor
        else:
            assert new.tobytes() == old.tobytes(), tensor


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_that_peft_made_merges_as_peft_merges_it(
    case: Callable[..., Case], tmp_path: Path, name: str
) -> None:
    made = case(name, "float32")
    modules = load_file(made.out / "adapter" / "adapter_model.safetensors")
    names = {key.removeprefix("base_model.model.").split(".lora_")[0] for key in modules}
    wanted = [each for each in names if each.endswith(("q_proj", "down_proj", "router.proj", "per_layer_projection"))]
    assert wanted
    torch.manual_seed(3)
    config = peft.LoraConfig(r=3, lora_alpha=9, target_modules=sorted(wanted), use_rslora=True, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(load(made.kind, made.base), config)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(str(tmp_path / "theirs"))
    out = tmp_path / "out"
    out.mkdir()
    metrics = run(ConvertConfig(), ConvertInputs(base=str(made.base), adapter=str(tmp_path / "theirs")), out)
    assert metrics["merged"] == len(wanted)
    expected = logits(adapted.eval().merge_and_unload())
    np.testing.assert_allclose(logits(load(made.kind, out / "model")), expected, atol=CLOSE)
