"""A PEFT adapter beside our weights: joined exactly over random rows, and equal to PEFT's own model in its logits."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.safetensors import Shard
from models.adapters.lora import attach, known_products
from models.adapters.peft import PeftAdapter, PeftPair, joined, read_peft_adapter
from models.folder.load import load_decoder
from models.leaf import Leaf, peft_pair
from tests.models.families import FAMILIES, build
from tests.models.test_leaf import leaves

PATTERNS: dict[str, Any] = {
    "rank_pattern": {"k_proj": 2, r"layers\.1\.mlp\.up_proj": 6},
    "alpha_pattern": {"down_proj": 3, "v_proj": 24},
}
DOT, NAMED = ".weight", ".default.weight"
ALWAYS = {"gemma4 experts", "qwen3"}
OLD_NAME = "`is_gradient_checkpointing` is deprecated"
pytestmark = pytest.mark.filterwarnings(f"ignore:{OLD_NAME}:FutureWarning")


@given(leaves(), st.integers(0, 2**32 - 1), st.booleans())
def test_joined_pairs_say_the_same(leaf: Leaf, seed: int, shared: bool) -> None:
    random = np.random.default_rng(seed)
    first = random.standard_normal((2, leaf.hf_shape[1])).astype(np.float32)
    pairs: dict[str, PeftPair] = {}
    updates = {name: np.zeros(leaf.hf_shape, np.float32) for name in leaf.hf_names}
    for name in leaf.hf_names:
        if random.random() < 0.3:
            continue
        rank, scale = int(random.integers(1, 4)), float(random.choice([0.5, 2.0]))
        a = first if shared else random.standard_normal((rank, leaf.hf_shape[1])).astype(np.float32)
        b = random.standard_normal((leaf.hf_shape[0], len(a))).astype(np.float32)
        pairs[name] = PeftPair(len(a), scale, partial(lambda a, b: (a, b), a, b))
        updates[name] = (scale * b @ a).astype(np.float32)
    row = joined(leaf, PeftAdapter(2, 4.0, 2.0, False, pairs, "", Shard(Path(), b"", ())))
    assert (row is None) == (not pairs)
    if row is None:
        return
    assert not shared or row.rank == 2
    for name, index in leaf.index():
        a, b = peft_pair(leaf, index, row.a, row.b)
        np.testing.assert_allclose(2.0 * b @ a, updates[name], atol=1e-5, err_msg=name)


def write_peft(name: str, place: Path, rslora: bool) -> tuple[Any, Path, Path]:
    """PEFT's model of a family with a random adapter, and the folders of base and adapter."""
    base, adapter = place / "base", place / "adapter"
    model = build(name)
    model.save_pretrained(base)
    names = "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    targets: Any = rf".*language_model\..*\.({'|'.join(names)})" if "multimodal" in name else list(names)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_rslora=rslora, **PATTERNS)
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for key, value in adapted.named_parameters():
            if "lora_B" in key:
                value.normal_(std=0.1)
    adapted.save_pretrained(str(adapter))
    return adapted.eval(), base, adapter


def respell(adapter: Path, how: Callable[[str], str]) -> None:
    """The same pairs under other keys."""
    path = adapter / "adapter_model.safetensors"
    save_file({how(key): value for key, value in load_file(path).items()}, path)


def add_zeros(adapter: Path, module: str) -> None:
    """A pair that was never trained: B is zero."""
    path = adapter / "adapter_model.safetensors"
    key = f"base_model.model.{module}.lora_"
    rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
    save_file(load_file(path) | {f"{key}A.weight": torch.ones(rank, 24), f"{key}B.weight": torch.zeros(24, rank)}, path)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "of the text model alone": lambda key: key.replace("model.language_model.", "model."),
    "of an older model": lambda key: key.replace("model.language_model.", "language_model.model."),
    "with the adapter's name": lambda key: key.replace(DOT, NAMED),
    "without a prefix": lambda key: key.removeprefix("base_model.model."),
    "without any": lambda key: key.removeprefix("base_model.model.model.language_model.").replace(DOT, NAMED),
}


def test_a_multimodal_base_knows_its_adapter_in_every_spelling(tmp_path: Path) -> None:
    _, base, adapter = write_peft("gemma3 multimodal", tmp_path, rslora=False)
    decoder = load_decoder(str(base), "float32", stacked=True)
    known = known_products(decoder)
    want = attach(decoder, None, read_peft_adapter(adapter, known), "float32")
    _, params = nnx.split(decoder)
    for number, how in enumerate(SPELLINGS.values()):
        place = Path(shutil.copytree(adapter, tmp_path / f"a{number}"))
        add_zeros(place, "model.vision_tower.layers.0.q_proj")
        respell(place, how)
        again = attach(decoder, None, read_peft_adapter(place, known), "float32")
        assert again == replace(want, untrained=("model.vision_tower.layers.0.q_proj.weight",))
        for (key, got), (_, old) in zip(nnx.split(decoder)[1].flat_state(), params.flat_state(), strict=True):
            np.testing.assert_array_equal(got[...], old[...], err_msg=str(key))


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in FAMILIES]
)
def test_logits_are_those_of_peft(tmp_path: Path, name: str, stacked: bool) -> None:
    theirs, base, adapter = write_peft(name, tmp_path, rslora=stacked)
    decoder = load_decoder(str(base), "float32", stacked)
    found = attach(decoder, None, read_peft_adapter(adapter, known_products(decoder)), "float32")
    assert not found.missing and found.rank == 4 and max(found.ranks.values()) == 10
    tokens = np.random.default_rng(0).integers(3, 90, (2, 20))
    positions, segments = np.broadcast_to(np.arange(20), (2, 20)), np.ones((2, 20), int)
    ours = np.asarray(nnx.jit(lambda model, *batch: model(*batch))(decoder, tokens, positions, segments))
    with torch.no_grad():
        want = theirs(input_ids=torch.from_numpy(tokens)).logits.numpy()
        plain = theirs.unload()(input_ids=torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(ours, want, atol=2e-4)
    assert np.abs(want - plain).max() > 0.05


def test_an_adapter_of_another_model_is_named(tmp_path: Path) -> None:
    _, _, adapter = write_peft("gemma4 experts", tmp_path, rslora=False)
    build("qwen3").save_pretrained(tmp_path / "other")
    decoder = load_decoder(str(tmp_path / "other"), "float32", stacked=True)
    with pytest.raises(UserError) as caught:
        attach(decoder, None, read_peft_adapter(adapter, known_products(decoder)), "float32")
    assert "model.layers.2." in str(caught.value) and "base" in (caught.value.fix or "")
