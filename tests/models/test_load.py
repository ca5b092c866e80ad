"""Loading: every tensor is used, and what is wrong is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from safetensors.numpy import load_file, save_file

from common.errors import UserError
from models.families import read_spec, rows
from models.folder.load import load_params
from models.leaf import Leaf, from_hf, to_hf
from models.weights.files import WeightFiles
from models.weights.stream import stream

MakeModel = Callable[[str], tuple[Path, Any]]


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_model("a tail")[0], tmp_path / "model"))


def change(folder: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("stacked", [True, False])
def test_round_trip_is_byte_identical(folder: Path, stacked: bool) -> None:
    checkpoint = WeightFiles(str(folder))
    saved: dict[str, np.ndarray] = {}
    for leaf in rows(read_spec(str(folder)), stacked):
        saved.update(to_hf(leaf, from_hf(leaf, checkpoint.read)))
    assert set(saved) == set(checkpoint.names()) - {"lm_head.weight"}
    assert all(saved[name].tobytes() == checkpoint.read(name).tobytes() for name in saved)


def test_a_missing_tensor(folder: Path) -> None:
    change(folder, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError) as error:
        load_params(str(folder), "float32", True)
    assert error.value.where == "model.layers.1.mlp.up_proj.weight"


def test_an_unexpected_tensor(folder: Path) -> None:
    change(folder, lambda t: t.update({"model.layers.0.extra": np.zeros(2, np.float32)}))
    with pytest.raises(UserError) as error:
        load_params(str(folder), "float32", True)
    assert error.value.where == "model.layers.0.extra"


def test_weights_that_are_not_numbers(folder: Path) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.weight"][3] = np.nan

    change(folder, spoil)
    with pytest.raises(UserError, match="NaN") as error:
        load_params(str(folder), "float32", True)
    assert error.value.where == "model.norm.weight"


def test_a_truncated_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="bytes long, its header says"):
        load_params(str(folder), "float32", True)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_params(str(folder), "float32", True)


@pytest.mark.parametrize(
    ("on_host", "dtype"),
    [
        (True, "float32"),
        (True, "bfloat16"),
        (False, "bfloat16"),
        pytest.param(False, "float32", marks=pytest.mark.slow),
    ],
)
def test_streams_equal_the_table(folder: Path, dtype: str, on_host: bool) -> None:
    table = rows(read_spec(str(folder)), True)
    same_as_the_table(table, WeightFiles(str(folder)), dtype, on_host)


@pytest.mark.parametrize("on_host", [True, False])
def test_a_row_in_another_order_than_its_tensors(tmp_path: Path, on_host: bool) -> None:
    rng = np.random.default_rng(0)
    save_file(
        {f"w{i}": rng.normal(size=(6, 5)).astype(ml_dtypes.bfloat16) for i in range(2)}, tmp_path / "m.safetensors"
    )
    leaf = Leaf("w", ("w0", "w1"), "d l h k", "(k h) d", (5, 2, 3, 2))
    same_as_the_table([leaf], WeightFiles(str(tmp_path)), "bfloat16", on_host)


def same_as_the_table(table: list[Leaf], checkpoint: WeightFiles, dtype: str, on_host: bool) -> None:
    place = SingleDeviceSharding(jax.devices()[0])
    got = stream(table, checkpoint, dtype, {leaf.path: place for leaf in table}, on_host, small=0)
    for leaf in table:
        want = from_hf(leaf, checkpoint.read).astype(dtype)
        assert np.array_equal(np.asarray(got[leaf.path]).view(np.uint8), want.view(np.uint8)), leaf.path


def test_a_tensor_of_another_shape(folder: Path) -> None:
    change(folder, lambda t: t.update({"model.norm.weight": np.zeros(3, np.float32)}))
    with pytest.raises(UserError, match=r"shape \[3\], the configuration says \[64\]"):
        load_params(str(folder), "float32", True)


def test_whole_numbers_are_no_weights(folder: Path) -> None:
    change(folder, lambda t: t.update({"model.norm.weight": np.zeros(64, np.int32)}))
    with pytest.raises(UserError, match="type I32") as error:
        load_params(str(folder), "float32", True)
    assert error.value.where == "model.norm.weight"


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_attention_heads", 0), ("num_key_value_heads", 0), ("sliding_window", -8), ("head_dim", -16)],
)
def test_a_configuration_that_cannot_be(folder: Path, key: str, value: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(UserError, match="must be a positive whole number") as error:
        load_params(str(folder), "float32", True)
    assert f"{key} = {value}" in error.value.where


@pytest.mark.parametrize("kind", ["unheard_of", ["gemma4_text"], None])
def test_a_model_type_that_is_not_known(folder: Path, kind: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    with pytest.raises(UserError, match="is not known"):
        read_spec(str(folder))


def test_a_configuration_that_lacks_a_key(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["enable_moe_block"] = True
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="lacks 'num_experts'"):
        read_spec(str(folder))
