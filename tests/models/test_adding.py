"""A projection and a family are each added in one place; everything else follows from the row and the spec."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from safetensors.numpy import load_file, save_file

from common.files import read_json, write_json
from models.adapters.lora import add_lora, known_products
from models.config import HardwareConfig
from models.families import TEXT, llama, read_spec, rows
from models.folder.load import load_decoder
from models.leaf import PRODUCT, Leaf, Row, equation, lora_shapes, peft_pair, target_like, to_hf
from models.mesh import AXES, make_mesh, weight_sharding
from models.quant.layout import mode_of
from models.spec import DecoderSpec
from tests.models.adapters.test_lora import EQUATIONS
from tests.models.families import FAMILIES, build

USE = replace(PRODUCT, sharding=(("h", "tp"), ("n", None)))
MIXER = Row("mixer", ("self_attn.mixer.weight",), "n h d", "(n h) d", USE)
"""The one line that a new projection is."""


def toy(config: Mapping[str, Any], prefix: str) -> DecoderSpec:
    """The one function that a new family is."""
    return replace(llama.qwen3(config, prefix), family="toy", own_rows=(MIXER,))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setitem(TEXT, "toy", toy)
    build("qwen3").save_pretrained(tmp_path)
    write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | {"model_type": "toy"})
    tensors = load_file(tmp_path / "model.safetensors")
    random = np.random.default_rng(0)
    layers = sorted({name.split(".")[2] for name in tensors if name.startswith("model.layers.")})
    shape = tensors["model.layers.0.self_attn.q_proj.weight"].shape
    more = {f"model.layers.{i}.self_attn.mixer.weight": random.standard_normal(shape, np.float32) for i in layers}
    save_file(tensors | more, tmp_path / "model.safetensors", metadata={"format": "pt"})
    yield tmp_path


def mixer_of(spec: DecoderSpec) -> Leaf:
    return next(leaf for leaf in rows(spec, True) if leaf.target == "mixer")


def test_all_of_a_projection_follows_from_its_row(folder: Path) -> None:
    spec = read_spec(str(folder))
    leaf = mixer_of(spec)
    held = load_file(folder / "model.safetensors")
    decoder = load_decoder(str(folder), "float32", stacked=True)
    stack = decoder.stacks[spec.kinds[0]]
    weight = np.asarray(stack.sub("mixer").w[...])
    for name, tensor in to_hf(leaf, weight).items():
        np.testing.assert_array_equal(tensor, held[name])
    assert equation(leaf) == stack.sub("mixer").equation == "btd,nhd->btnh"
    assert mode_of(leaf, "int8") == "int8"
    assert set(leaf.hf_names) <= known_products(decoder)
    assert weight_sharding(AbstractMesh((1, 2, 2), AXES), leaf).spec == PartitionSpec(None, None, "tp", "fsdp")
    mesh = make_mesh(HardwareConfig())
    add_lora(decoder, mesh, 2, 4.0, ["mixer"], 0)
    a, b = (half[...] for half in (stack.sub("mixer").w_lora_a, stack.sub("mixer").w_lora_b))
    assert (a.shape, b.shape) == lora_shapes(leaf, 2)
    theirs = peft_pair(leaf, (0,), np.asarray(a), np.asarray(b))
    assert [half.shape for half in theirs] == [(2, spec.width), (leaf.hf_shape[0], 2)]


def test_the_new_projection_multiplies(folder: Path) -> None:
    layer = load_decoder(str(folder), "float32", stacked=False).layers[1]
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, layer.sub("mixer").w[...].shape[-1])), jnp.float32)
    name = "model.layers.1.self_attn.mixer.weight"
    want = np.asarray(x) @ load_file(folder / "model.safetensors")[name].T
    np.testing.assert_allclose(layer.sub("mixer")(x).reshape(want.shape), want, atol=1e-5)


def test_a_new_family_is_read_and_named(folder: Path) -> None:
    assert read_spec(str(folder)).family == "toy"
    assert {leaf.target for leaf in rows(read_spec(str(folder)), False)} >= {"q", "kv", "mixer"}


@pytest.mark.parametrize("name", FAMILIES)
def test_equations_are_those_that_one_would_write(name: str, tmp_path: Path) -> None:
    build(name).config.save_pretrained(tmp_path)
    products = [leaf for leaf in rows(read_spec(str(tmp_path)), True) if leaf.use.product]
    assert {leaf.target for leaf in products} >= {"q", "o", "gate_up", "down"}
    for leaf in products:
        assert equation(leaf) == EQUATIONS["k" if leaf.target == "kv" and "s" not in leaf.letters else leaf.target]
        alone = replace(leaf, our_axes=leaf.our_axes.removeprefix("l "), shape=leaf.shape[1:])
        assert equation(leaf) == equation(alone)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("q_proj", "q"),
        ("v_proj", "kv"),
        ("model.layers.0.mlp.up_proj", "gate_up"),
        ("mixr", "mixer"),
        ("wavelet", None),
    ],
)
def test_a_target_by_its_other_names(folder: Path, word: str, meant: str | None) -> None:
    assert target_like(rows(read_spec(str(folder)), False), word) == meant


def test_every_linear_of_a_model_can_be_merged_into(tmp_path: Path) -> None:
    """PEFT's all-linear adapts the projection outside the layers, too: convert knows it, LoRA's targets do not."""
    build("gemma4 E2B").config.save_pretrained(tmp_path)
    outside = {
        leaf.path for leaf in rows(read_spec(str(tmp_path)), True) if leaf.use.adaptable and "." not in leaf.path
    }
    assert outside == {"per_layer_model_projection"}
    assert (
        target_like(rows(read_spec(str(tmp_path)), True), "per_layer_model_projection") != "per_layer_model_projection"
    )
