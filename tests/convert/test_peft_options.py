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


@pytest.mark.parametrize("r", [0, -1, 2.5, "4", True, None, 10**30, 10**400])
def test_ranks_that_cannot_be(trained, convert, tmp_path, r) -> None:
    with pytest.raises(UserError):
        convert(trained[0], changed(trained[1], tmp_path / "a", r=r))


@pytest.mark.parametrize("alpha", [0, "8", True, None, float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("key", ["lora_alpha", "alpha_pattern"])
def test_alphas_that_cannot_be(trained, convert, tmp_path, key, alpha) -> None:
    value = alpha if key == "lora_alpha" else {"q_proj": alpha}
    with pytest.raises(UserError, match="alpha is a finite number") as caught:
        convert(trained[0], changed(trained[1], tmp_path / "a", **{key: value}))
    assert caught.value.where.endswith(key)


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        ("(q_proj", "not a regular expression"),
        ("*", "not a regular expression"),
        ("(?P<x", "not a regular expression"),
        ("(" * 5000 + ")" * 5000, "not a regular expression|cannot be matched"),
    ],
)
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_patterns_that_cannot_be(trained, convert, tmp_path, key, pattern, match) -> None:
    with pytest.raises(UserError, match=match) as caught:
        convert(trained[0], changed(trained[1], tmp_path / "a", **{key: {pattern: 4}}))
    assert key in caught.value.where


def test_a_pattern_that_never_ends_is_ended(trained, convert, tmp_path) -> None:
    with pytest.raises(UserError, match="longer than") as caught:
        convert(trained[0], changed(trained[1], tmp_path / "a", rank_pattern={"([a-z_.0-9]+)+!": 4}))
    assert "rank_pattern: ([a-z_.0-9]+)+!" in caught.value.where


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


EMBED, HEAD = "base_model.model.model.embed_tokens.", "base_model.model.lm_head."
OTHERS = {
    "a head beside its pair": ({HEAD + "base_layer.weight": (96, 32)}, "a layer of the base", "save_embedding_layers"),
    "a head": ({HEAD + "weight": (96, 32)}, "the base's head", "save_embedding_layers=False"),
    "a table": ({EMBED + "weight": (96, 32)}, "a table of the base", "save_embedding_layers=False"),
    "LoRA of a table": ({EMBED + "lora_embedding_A": (4, 96)}, "LoRA on a table", "train without it"),
    "one that PEFT does not have": (
        {EMBED + "lora_A.weight": (4, 32), EMBED + "lora_B.weight": (96, 4)},
        "a table that tokens are looked up in",
        "save the adapter again",
    ),
    "two adapters": (
        {f"base_model.model.{MODULE}.lora_{half}.other.weight": (4, 4) for half in "AB"},
        "two adapters are in one file: '' and 'other'",
        "one by one",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_else_a_file_holds_is_told_with_what_to_do(trained, convert, tmp_path, what) -> None:
    shapes, match, fix = OTHERS[what]
    place = changed(trained[1], tmp_path / "a")
    path = place / "adapter_model.safetensors"
    save_file(load_file(path) | {key: torch.ones(shape) for key, shape in shapes.items()}, path)
    with pytest.raises(UserError, match=match) as caught:
        convert(trained[0], place)
    assert fix in (caught.value.fix or "")


def test_an_untied_head_is_merged_as_peft_merges_it(trained, convert, tmp_path) -> None:
    base = Path(shutil.copytree(trained[0], tmp_path / "untied"))
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(base)
    adapted = peft.get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "lm_head"]))
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    out, _ = convert(base, tmp_path / "a")
    check_equal(out, merged(base, tmp_path / "a"))


def test_a_negative_alpha_has_a_norm_and_an_update_too_small_is_lost(trained, convert, tmp_path) -> None:
    groups = {}
    for alpha in (4, -4, 1e-30):
        place = changed(trained[1], tmp_path / f"a{alpha}", lora_alpha=alpha)
        out, metrics = convert(trained[0], place, f"o{alpha}")
        groups[alpha] = json.loads((out / "certificate.json").read_text())["targets"]
        assert metrics["untrained"] == 0
    assert [group["trained"] for group in groups[4]] == [group["trained"] for group in groups[-4]]
    assert all(group["flags"] == ["lost in the cast"] for group in groups[1e-30])


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
