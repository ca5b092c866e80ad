"""The mesh: what tp must divide is named before loading; on eight virtual devices the logits are the same."""

import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from common.errors import UserError
from models.config import HardwareConfig
from models.families import read_spec
from models.mesh import auto_mesh, check_tp, laid_out, make_mesh
from models.spec import DecoderSpec

REPO = Path(__file__).resolve().parents[2]
GEMMA = {
    "vocab_size": 512,
    "vocab_size_per_layer_input": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 4,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "sliding_window": 8,
    "final_logit_softcapping": 30.0,
}
ODD = GEMMA | {
    "vocab_size": 508,
    "vocab_size_per_layer_input": 508,
    "intermediate_size": 92,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
}
NORMS = ("q_norm", "k_norm", "input_norm", "post_attention_norm", "pre_mlp_norm", "post_mlp_norm")


def save(folder: Path, config: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    Gemma4ForCausalLM(Gemma4TextConfig(**config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("gemma"), GEMMA)


@pytest.fixture(scope="module")
def spec(folder: Path) -> DecoderSpec:
    return read_spec(str(folder))


@pytest.fixture(scope="module")
def child(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The models `even` and `odd` on eight virtual devices."""
    odd = save(tmp_path_factory.mktemp("odd"), ODD)
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": str(REPO)}
    command = [sys.executable, str(Path(__file__).with_name("mesh_child.py")), str(folder), str(odd)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_logits_are_those_of_one_device(child: dict[str, Any]) -> None:
    assert set(child["even"]["apart"]) == {"1,8", "2,4", "4,2", "8,1"}
    assert set(child["odd"]["apart"]) == {"1,8"}
    assert set(child["int4"]["apart"]) == set(child["int8"]["apart"]) == {"2,4"}
    for each in (child[name] for name in ("even", "odd", "int4", "int8")):
        assert each["scale"] > 0.1
        assert max(each["apart"].values()) <= 2e-4


def test_gradients_are_those_of_one_device_and_lie_as_weights_do(child: dict[str, Any]) -> None:
    found = child["gradients"]
    assert found["scale"] > 1e-3 and found["apart"] <= 1e-5 * found["scale"]
    assert found["as weights"] == found["wide"] > 8


def test_what_eight_does_not_divide_is_whole_on_every_device(child: dict[str, Any]) -> None:
    placed = child["odd"]["placed"]["1,8"]
    assert not any("tp" in axes for axes in placed.values())
    assert placed["sliding.q"] == [None, None, None, "fsdp"]


def expected(fsdp: int, tp: int) -> dict[str, list[str | None]]:
    """The literal tree; where tp is 8, the four global KV heads are whole on every device. Without tp, fsdp takes the
    outermost axis that it divides."""
    assert (fsdp, tp) in ((1, 8), (2, 4), (4, 2), (8, 1))
    tree: dict[str, list[str | None]] = {
        "embed": ["tp", "fsdp"],
        "final_norm": ["fsdp"],
        "sliding.q": [None, "tp", None, "fsdp"],
        "sliding.kv": [None, None, "tp", None, "fsdp"],
        "sliding.o": [None, "fsdp", "tp", None],
        "sliding.gate_up": [None, None, "tp", "fsdp"],
        "sliding.down": [None, "fsdp", "tp"],
        "sliding.scalar": [None],
        "global.q": [None, "tp", None, "fsdp"],
        "global.kv": [None, None if tp == 8 else "tp", None, "fsdp"],
        "global.o": [None, "fsdp", "tp", None],
        "global.gate_up": [None, None, "tp", "fsdp"],
        "global.down": [None, "fsdp", "tp"],
        "global.scalar": [None],
    }
    for kind in ("sliding", "global"):
        tree |= {f"{kind}.{name}": [None, None if name in ("q_norm", "k_norm") else "fsdp"] for name in NORMS}
    if tp == 1:
        tree |= {"embed": ["fsdp", None], "sliding.kv": [None, None, "fsdp", None, None]}
        tree |= {f"{kind}.q": [None, "fsdp", None, None] for kind in ("sliding", "global")}
        tree |= {f"{kind}.gate_up": [None, None, "fsdp", None] for kind in ("sliding", "global")}
    return tree


@pytest.mark.parametrize(("fsdp", "tp"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_where_every_parameter_lies(child: dict[str, Any], fsdp: int, tp: int) -> None:
    assert child["even"]["placed"][f"{fsdp},{tp}"] == expected(fsdp, tp)


def test_the_binding_size_is_named(spec: DecoderSpec) -> None:
    with pytest.raises(UserError) as error:
        check_tp(spec, 8, "none")
    assert error.value.what == "num_global_key_value_heads = 4: tp = 8 needs replication of global KV heads"
    assert error.value.where == "hardware.mesh.tp"
    assert error.value.fix == "write hardware.replicate: kv, or choose tp from [1, 2, 4]"
    check_tp(spec, 8, "kv")
    with pytest.raises(UserError, match="num_attention_heads = 8: tp = 3 does not divide 8"):
        check_tp(spec, 3, "kv")
    check_tp(spec, 3, "all")


@pytest.mark.parametrize(
    ("devices", "replicate", "batch", "sizes"),
    [
        (8, "none", None, {"fsdp": 8, "tp": 1}),
        (8, "none", 4, {"fsdp": 4, "tp": 2}),
        (8, "kv", 1, {"fsdp": 1, "tp": 8}),
    ],
)
def test_auto(spec: DecoderSpec, devices: int, replicate: str, batch: int | None, sizes: dict[str, int]) -> None:
    got, why = auto_mesh(devices, replicate, spec, batch)
    assert got == sizes
    assert f"fsdp = {sizes['fsdp']} is the most that divides hidden_size 64" in why


def test_auto_where_nothing_fits(spec: DecoderSpec) -> None:
    with pytest.raises(UserError, match="no mesh of 12 devices fits this model and a batch of 12"):
        auto_mesh(12, "none", spec, 12)


def test_a_product_that_is_not_the_device_count(spec: DecoderSpec) -> None:
    for mesh in ({"fsdp": 3}, {"fsdp": 2, "tp": 2}):
        with pytest.raises(UserError, match="places, but there are") as error:
            make_mesh(HardwareConfig.model_validate({"mesh": mesh}), spec)
        assert error.value.where == "hardware.mesh"


@dataclass(frozen=True)
class Chip:
    """What JAX's layout asks of a TPU: none is here to be asked."""

    id: int
    coords: tuple[int, int, int]
    device_kind: str = "TPU v6 lite"
    platform: str = "tpu"
    core_on_chip: int = 0
    slice_index: int = 0
    process_index: int = 0


@pytest.mark.parametrize(
    ("wide", "taken", "shape", "order"),
    [
        (2, 8, (1, 2, 4), [0, 1, 2, 3, 7, 6, 5, 4]),
        (2, 4, (1, 1, 4), [0, 1, 3, 2]),
        (2, 3, (1, 1, 3), [0, 1, 2]),
        (4, 16, (1, 2, 8), [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]),
    ],
    ids=["rings", "a ring of four", "no box", "half an axis of the slice"],
)
def test_devices_stand_by_the_slice_or_as_listed(
    wide: int, taken: int, shape: tuple[int, int, int], order: list[int]
) -> None:
    """`wide` chips in a row: an axis of the mesh is a ring, or a box of neighbours, where they fill a box."""
    chips = [Chip(i, (i % wide, i // wide, 0)) for i in range(16)]
    assert [chip.id for chip in laid_out(shape, chips[:taken]).devices.flat] == order


@pytest.mark.parametrize(
    "kind", ["TPU v3", "TPU v4", "TPU v5 lite", "TPU v5p", "TPU v6 lite", "TPU7x", "TPU of a later day"]
)
@pytest.mark.parametrize("wide", [(2, 2), (4, 1), (4, 4), (3, 2)])
def test_every_shape_of_every_part_of_a_slice_is_laid_out(kind: str, wide: tuple[int, int]) -> None:
    x, y = wide
    cores = 2 if kind in ("TPU v3", "TPU7x") else 1
    places = [(i // cores % x, i // cores // x % y, i // cores // x // y) for i in range(16)]
    chips = [Chip(i, place, kind, core_on_chip=i % cores) for i, place in enumerate(places)]
    for taken in range(1, 17):
        for shape in itertools.product(*[[n for n in range(1, taken + 1) if taken % n == 0]] * 3):
            if math.prod(shape) == taken:
                placed = laid_out(shape, chips[:taken]).devices
                assert placed.shape == shape and sorted(chip.id for chip in placed.flat) == list(range(taken))


def test_several_slices_stand_as_listed() -> None:
    chips = [Chip(i, (i % 2, i % 4 // 2, 0), slice_index=i // 4) for i in range(8)]
    assert [chip.id for chip in laid_out((2, 1, 4), chips).devices.flat] == list(range(8))
