"""Every field of PEFT's LoRA configuration at other values: honoured as PEFT does, to 1e-5, or refused by name."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from common.errors import UserError
from tests.models.families import build

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODULE = "model.layers.1.mlp.up_proj"
FIELDS = {field.name: field for field in dataclasses.fields(LoraConfig)}
STARTS = ("pissa", "pissa_niter_4", "olora", "OLORA", "corda", "loftq", "lora_ga", "another")
SPECIAL: dict[str, list[Any]] = {
    "lora_alpha": [3, 0.5, -4],
    "use_rslora": [True],
    "lora_dropout": [0.5],
    "inference_mode": [False],
    "qalora_group_size": [32],
    "alpha_pattern": [{MODULE: 2}, {r".*\.0\..*_proj": 5, "q_proj": 1}, {"k_proj|v_proj": 7}],
    "init_lora_weights": [False, "gaussian", "eva", "orthogonal", "mica", *STARTS],
    "peft_type": sorted(str(each.value) for each in PEFT_TYPE_TO_CONFIG_MAPPING if each.value != "LORA"),
    "bias": ["all", "lora_only"],
    "runtime_config": [{"ephemeral_gpu_offload": True}],
}
MADE = ([True, 1, "word", ["word"], [1], {"key": 1}],)
"""For every field that is not above: a value of each kind."""
LOADS = {"lora_alpha", "use_rslora", "alpha_pattern", "lora_dropout", "inference_mode", "qalora_group_size"}
"""Whose merge is held against PEFT's own, loaded from the same file."""
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning")


def values() -> list[tuple[str, Any]]:
    given = {name: SPECIAL.get(name, MADE[0]) for name in FIELDS}
    return [(name, value) for name in FIELDS for value in given[name]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and a plain adapter of it with random factors."""
    folder = tmp_path_factory.mktemp("peft")
    torch.manual_seed(0)
    build("qwen3").save_pretrained(folder / "base")
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder / "base"), LoraConfig(r=4, target_modules=NAMES)
    )
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1)
    model.save_pretrained(str(folder / "adapter"))
    return folder / "base", folder / "adapter"


def changed(adapter: Path, place: Path, **keys: Any) -> Path:
    shutil.copytree(adapter, place)
    about = json.loads((place / "adapter_config.json").read_text())
    (place / "adapter_config.json").write_text(json.dumps(about | keys))
    return place


def merged(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    return model.merge_and_unload().state_dict()


def check_equal(ours: Path, theirs: dict[str, torch.Tensor]) -> None:
    for name, tensor in load_file(ours / "model" / "model.safetensors").items():
        np.testing.assert_allclose(tensor, theirs[name], atol=1e-5, err_msg=name)


def test_every_option_is_honoured_as_peft_does_or_refused_by_name(trained, convert, tmp_path, request) -> None:
    base, adapter = trained
    plain, kept = merged(base, adapter), 0
    for number, (key, value) in enumerate(values()):
        place = changed(adapter, tmp_path / f"a{number}", **{key: value})
        try:
            out, _ = convert(base, place, f"o{number}")
        except UserError as error:
            said = str(error)
            assert key in said or (key == "peft_type" and str(value) in said) or key in ("r", "rank_pattern"), said
            continue
        kept += 1
        check_equal(out, merged(base, place) if key in LOADS else plain)
        shutil.rmtree(out)
    assert kept > 15


@pytest.mark.parametrize("value", [True, False, 1, "x", [], {}])
def test_an_option_of_another_peft_is_refused_whatever_it_says(trained, convert, tmp_path, value) -> None:
    base, adapter = trained
    with pytest.raises(UserError, match="not known here") as caught:
        convert(base, changed(adapter, tmp_path / "a", use_something_new=value))
    assert "use_something_new" in caught.value.where


@pytest.mark.parametrize("r", [0, -1, 2.5, "4", True, None, 10**30])
def test_ranks_that_cannot_be(trained, convert, tmp_path, r) -> None:
    with pytest.raises(UserError):
        convert(trained[0], changed(trained[1], tmp_path / "a", r=r))


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        ("(q_proj", "not a regular expression"),
        ("*", "not a regular expression"),
        ("(?P<x", "not a regular expression"),
        ("(" * 5000 + ")" * 5000, "not a regular expression|cannot be matched"),
        ("([a-z_.0-9]+)+!", "longer than"),
    ],
)
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_patterns_that_cannot_be_or_never_end(trained, convert, tmp_path, key, pattern, match) -> None:
    with pytest.raises(UserError, match=match) as caught:
        convert(trained[0], changed(trained[1], tmp_path / "a", **{key: {pattern: 4}}))
    assert key in caught.value.where


@pytest.mark.parametrize("name", ["adapter_config.json", "config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_without_a_bottom(trained, convert, tmp_path, name, opening) -> None:
    base, adapter = (Path(shutil.copytree(each, tmp_path / each.name)) for each in trained)
    place = adapter if name == "adapter_config.json" else base
    (place / name).write_text(opening * 100_000)
    with pytest.raises(UserError, match="nested too deeply"):
        convert(base, adapter)


RENAMES = {
    "an adapter's name": lambda key: key.replace(".weight", ".default.weight"),
    "another name": lambda key: key.replace(".weight", ".my-adapter.weight"),
    "no prefix": lambda key: key.removeprefix("base_model.model."),
    "of a multimodal model": lambda key: key.replace("model.layers.", "model.language_model.layers."),
    "of an older one": lambda key: key.replace("model.model.layers.", "model.language_model.model.layers."),
}


@pytest.mark.parametrize("how", RENAMES)
def test_names_in_other_spellings_are_the_same_adapter(trained, convert, tmp_path, how) -> None:
    base, adapter = trained
    place = changed(adapter, tmp_path / "a")
    tensors = load_file(place / "adapter_model.safetensors")
    save_file({RENAMES[how](key): value for key, value in tensors.items()}, place / "adapter_model.safetensors")
    out, _ = convert(base, place)
    check_equal(out, plain := merged(base, adapter))
    if how in ("an adapter's name", "another name", "no prefix"):
        check_equal(out, merged(base, out / "adapter"))
    assert plain


@pytest.mark.parametrize(("half", "there"), itertools.product("AB", [True, False]))
def test_zero_updates_are_listed_and_the_rest_is_merged(trained, convert, tmp_path, half, there) -> None:
    base, adapter = trained
    place = changed(adapter, tmp_path / "a")
    module = MODULE if there else "model.vision_tower.layers.0.q_proj"
    tensors = load_file(place / "adapter_model.safetensors")
    keys = {each: f"base_model.model.{module}.lora_{each}.weight" for each in "AB"}
    tensors |= {keys[each]: tensors[f"base_model.model.{MODULE}.lora_{each}.weight"].clone() for each in "AB"}
    moving = dict(tensors)
    tensors[keys[half]] = torch.zeros_like(tensors[keys[half]])
    save_file(tensors, place / "adapter_model.safetensors")
    out, metrics = convert(base, place)
    check_equal(out, merged(base, place))
    said = json.loads((out / "certificate.json").read_text())
    assert [row["tensor"] for row in said["untrained"]] == [f"{module}.weight"] and metrics["untrained"] == 1
    assert any("untrained" in group["flags"] for group in said["targets"] if f"{module}.weight" in group["tensors"])
    if not there:
        save_file(moving, place / "adapter_model.safetensors")
        with pytest.raises(UserError, match="no such tensor"):
            convert(base, place, "another")


def test_a_pickle_is_not_read_and_said_to_be_one(trained, convert, tmp_path) -> None:
    place = changed(trained[1], tmp_path / "a")
    (place / "adapter_model.safetensors").rename(place / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin is a pickle"):
        convert(trained[0], place)


def test_an_adapter_of_a_tied_head_is_refused(trained, convert, tmp_path) -> None:
    base = Path(shutil.copytree(trained[0], tmp_path / "tied"))
    about = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(about | {"tie_word_embeddings": True}))
    place = changed(trained[1], tmp_path / "a")
    tensors = load_file(place / "adapter_model.safetensors")
    sizes = {"A": (4, about["hidden_size"]), "B": (about["vocab_size"], 4)}
    tensors |= {f"base_model.model.lm_head.lora_{half}.weight": torch.ones(size) for half, size in sizes.items()}
    save_file(tensors, place / "adapter_model.safetensors")
    with pytest.raises(UserError, match="tie_word_embeddings"):
        convert(base, place)
