"""Quantized weights: made alike however they are loaded, exact products, a stated error, and files that come back."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from common.errors import UserError
from models.decoder import Decoder
from models.families import read_spec, rows
from models.folder.load import load_decoder, load_params
from models.leaf import PRODUCT, Leaf, Use
from models.quant.layout import GROUP, Mode, mode_of, shapes
from models.quant.quantize import BLOCK_BYTES, quantized_blocks
from models.quant.weight import Quantized, plain, product
from tests.models.families import build

MODES = pytest.mark.parametrize("mode", get_args(Mode))
NF4 = [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0]
NF4 += [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
"""Appendix E of the QLoRA paper (arXiv 2305.14314)."""
LEAF = Leaf("layers.0.q", ("q",), "n h d", "(n h) d", (3, 4, 64), PRODUCT)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def make(name: str) -> Path:
        place = tmp_path_factory.mktemp("full")
        build(name).save_pretrained(place)
        return place

    return make


def held(leaf: Leaf, mode: Mode, tensor: np.ndarray) -> Quantized:
    blocks = list(quantized_blocks(leaf, mode, leaf.hf_names[0], tensor))
    codes, scale = (jnp.asarray(np.concatenate(each)) for each in list(zip(*blocks, strict=True))[1:])
    assert (codes.shape, scale.shape) == shapes(leaf, mode)
    return Quantized(codes, scale, mode, "float32")


def logits(decoder: Decoder, length: int = 20) -> np.ndarray:
    tokens = jnp.asarray(np.random.default_rng(0).integers(3, 90, (2, length)))
    positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    graph, state = nnx.split(decoder)
    run = jax.jit(lambda state, *batch: nnx.merge(graph, state)(*batch))
    return np.asarray(run(state, tokens, positions, jnp.ones_like(tokens)))


def test_codes_and_scales_by_hand() -> None:
    """Each code is the nearest value that its mode can hold, by arithmetic written out here."""
    tensor = np.random.default_rng(0).standard_normal((12, 64)).astype(np.float32)
    int8 = held(LEAF, "int8", tensor)
    scale = np.abs(tensor).max(1, keepdims=True) / 127.5
    np.testing.assert_allclose(int8.scale.reshape(12, 1), scale, rtol=1e-6)
    exact, codes = tensor / scale, np.asarray(int8.codes.reshape(12, 64), np.float32)
    inside = np.abs(exact) < 127.4  # the largest of a row stands between two codes
    np.testing.assert_array_equal(codes[inside], np.round(exact)[inside])
    assert np.abs(codes - exact).max() < 0.51
    groups = tensor.reshape(12, 2, GROUP)
    cases: list[tuple[Mode, float, np.ndarray]] = [("int4", 7.5, np.arange(-8, 8)), ("nf4", 1.0, np.array(NF4))]
    for mode, most, values in cases:
        four = held(LEAF, mode, tensor)
        scale = np.abs(groups).max(2, keepdims=True) / most
        np.testing.assert_allclose(four.scale.reshape(12, 2, 1), scale, rtol=1e-6)
        packed = np.asarray(four.codes).reshape(12, 2, GROUP // 2)
        codes = np.concatenate([packed & 15, packed >> 4], axis=-1)
        made = values[codes ^ 8 if mode == "int4" else codes] * scale
        np.testing.assert_allclose(four.wide().reshape(groups.shape), made, rtol=1e-5, atol=1e-7)
        closest = np.abs(groups[..., None] - scale[..., None] * values).min(-1)
        np.testing.assert_allclose(np.abs(made - groups), closest, atol=1e-6)


@MODES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_is_that_with_the_widened_weight(mode: Mode, dtype: str) -> None:
    random = np.random.default_rng(1)
    leaf = Leaf("layers.0.o", ("o",), "d n h", "d (n h)", (24, 2, 64), PRODUCT)
    w = held(leaf, mode, random.standard_normal((24, 128)).astype(np.float32))
    x = jnp.asarray(random.standard_normal((2, 3, 2, 64)), dtype)
    expected = np.einsum("btnh,dnh->btd", np.asarray(x, np.float32), np.asarray(w.wide(), np.float32))
    made = product(x, Quantized(w.codes, w.scale, mode, dtype))
    assert made.dtype == jnp.float32
    np.testing.assert_allclose(made, expected, atol=1e-4 if dtype == "float32" or mode == "int8" else 0.15)


def test_what_is_cut_into_blocks_is_the_same() -> None:
    rows_, width = 40, 64
    leaf = Leaf("embed", ("e",), "v d", "v d", (rows_ * 4096, width), Use(tokens=True))
    assert leaf.shape[0] * width * 4 > BLOCK_BYTES
    tensor = np.random.default_rng(2).standard_normal(leaf.shape).astype(np.float32)
    assert len(list(quantized_blocks(leaf, "int8", "e", tensor))) > 1
    whole = held(leaf, "int8", tensor)
    part = held(Leaf("embed", ("e",), "v d", "v d", (rows_, width), Use(tokens=True)), "int8", tensor[-rows_:])
    np.testing.assert_array_equal(whole.codes[-rows_:], part.codes)


BOUNDS = {"int8": 0.3, "int4": 0.9, "nf4": 0.9}
"""Root mean square error of the logits, as a share of their deviation: random weights carry every error onwards, the
mixture of experts (where another expert is chosen) the furthest."""
FAMILIES = ["gemma4 experts", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3", "gemma4 E2B"))]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("mode", ["int4", *(pytest.param(m, marks=pytest.mark.slow) for m in ("int8", "nf4"))])
def test_a_decoder_computes_with_its_codes(folder: Callable[[str], Path], name: str, mode: Mode) -> None:
    at = str(folder(name))
    spec, params = load_params(at, "float32", False, weights=mode)
    made = logits(Decoder(spec, params, False, mesh=None))
    widened = {path: plain(value) for path, value in params.items()}
    np.testing.assert_allclose(made, logits(Decoder(spec, widened, False, mesh=None)), atol=2e-4)
    full = logits(load_decoder(at, "float32", False))
    assert 1e-3 < np.sqrt(np.mean((made - full) ** 2)) / full.std() < BOUNDS[mode]


@pytest.mark.parametrize("mode", ["int4", pytest.param("int8", marks=pytest.mark.slow)])
def test_what_is_quantized_and_how_much_it_is_off(folder: Callable[[str], Path], mode: Mode) -> None:
    at = str(folder("gemma4 experts"))
    _, full = load_params(at, "float32", False)
    _, params = load_params(at, "float32", False, weights=mode)
    kinds = {path.rsplit(".", 1)[-1]: value.mode for path, value in params.items() if isinstance(value, Quantized)}
    products = ("q", "kv", "o", "gate_up", "down", "experts_gate_up", "experts_down")
    assert kinds == {"embed": "int8", **dict.fromkeys(products, mode)}
    for path, value in params.items():
        if isinstance(value, Quantized):
            error = np.linalg.norm(value.wide() - plain(full[path])) / np.linalg.norm(plain(full[path]))
            assert 0 < error < {"int8": 0.012, "int4": 0.11, "nf4": 0.11}[value.mode], path
        else:
            np.testing.assert_array_equal(value, full[path])


def test_stacked_layers_hold_the_same_codes(folder: Callable[[str], Path]) -> None:
    at = str(folder("qwen3"))
    stacked, single = (load_params(at, "float32", way, weights="int4")[1] for way in (True, False))
    for i in range(2):
        for target in ("q", "kv", "o", "gate_up", "down"):
            ours, theirs = stacked[f"global.{target}"], single[f"layers.{i}.{target}"]
            assert isinstance(ours, Quantized) and isinstance(theirs, Quantized)
            np.testing.assert_array_equal(ours.codes[i], theirs.codes)
            np.testing.assert_array_equal(ours.scale[i], theirs.scale)


def test_rows_whose_axis_has_no_group_stay_as_they_are() -> None:
    assert mode_of(Leaf("layers.0.down", ("w",), "d f", "d f", (8, 44), PRODUCT), "int4") is None
    assert mode_of(Leaf("layers.0.down", ("w",), "d f", "d f", (8, 44), PRODUCT), "int8") == "int8"
    assert mode_of(Leaf("layers.0.input_norm", ("w",), "d", "d", (64,)), "int8") is None


@pytest.mark.parametrize(
    ("about", "weights", "match"),
    [
        ({"quant_method": "fp8"}, None, "cannot be loaded"),
        ({"quant_method": "tapeout", "version": 1, "weights": "int4", "group_size": 64}, None, "cannot be loaded"),
        ("int8", None, "cannot be loaded"),
        ({"quant_method": "tapeout", "version": 1, "weights": "int4", "group_size": 32}, "int8", "int4 already"),
        (
            {"quant_method": "tapeout", "version": 1, "weights": "int4", "group_size": 32},
            None,
            "tensors are missing[\\s\\S]*weight_scale",
        ),
    ],
)
def test_configurations_that_cannot_be_loaded(
    folder: Callable[[str], Path], tmp_path: Path, about: Any, weights: Mode | None, match: str
) -> None:
    source = folder("qwen3")
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": about}))
    with pytest.raises(UserError, match=match):
        load_params(str(tmp_path), "float32", False, weights=weights)


def test_table_rows_and_their_codes_have_the_same_letters(folder: Callable[[str], Path]) -> None:
    for leaf in rows(read_spec(str(folder("gemma4 E2B"))), stacked=True):
        if (mode := mode_of(leaf, "int4")) is not None:
            assert all(len(shape) == len(leaf.letters) for shape in shapes(leaf, mode)) and leaf.in_hf_order
            assert jax.tree.leaves(Quantized(jnp.zeros(1), jnp.ones(1), mode, "float32"))
