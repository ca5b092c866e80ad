"""The step from shapes is the step that runs: the same program, to the letter."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from models.config import HardwareConfig
from models.families import read_spec, rows
from models.mesh import make_mesh
from tests.shapes import operand_types
from tests.train.conftest import LENGTH, REPO
from train.abstract import abstract_step
from train.config import TrainConfig, TrainInputs
from train.setup import prepare
from train.step import compile_step, start_state

CASES: dict[str, dict[str, Any]] = {
    "lora": {"lora": {"rank": 2, "targets": ["q", "down"]}},
    "unrolled": {"remat": "none", "scan_layers": False, "weight_decay": 0.1},
    "full": {"method": "full", "weight_decay": 0.1, "clip_norm": None},
    "random": {"method": "full", "init": "random", "remat": "products"},
    "int8": {"weights": "int8"},
    "nf4": {"weights": "nf4"},
}


def both(case: str, inputs: TrainInputs) -> tuple[str, str]:
    """The program lowered from arrays, as `train` does it, and from shapes."""
    config = TrainConfig(steps=20, batch_size=4, **CASES[case])
    setup = prepare(config, inputs)
    opt_state = start_state(setup.trainer, setup.trained, setup.mesh)
    batch = setup.batches.on_devices(next(setup.batches.open("train", 0)))
    step = compile_step(setup.trainer, setup.trained, opt_state)
    arrays = step.lower(setup.trained, opt_state, setup.frozen, batch)
    shapes = abstract_step(
        read_spec(inputs.model), config, make_mesh(inputs.hardware), (4, setup.batches.max_length), inputs.dtype
    )
    return arrays.as_text(), shapes.lower().as_text()


FAST = ("lora", "full", "int8")


@pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_shapes_lower_to_the_program_of_arrays(case: str, base: Path, data: Path) -> None:
    arrays, shapes = both(case, TrainInputs(model=str(base), data=str(data), dtype="bfloat16"))
    assert arrays == shapes and f"tensor<4x{LENGTH}xi32>" in arrays


def test_a_step_in_bfloat16_multiplies_bfloat16_and_widens_no_weights(base: Path) -> None:
    spec = read_spec(str(base))
    step = abstract_step(spec, TrainConfig(), make_mesh(HardwareConfig()), (3, LENGTH - 8))  # of no weight's shape
    lowered = step.lower()
    found = operand_types(lowered.as_text())
    assert len(found) > 50 and set(found) == {("bf16", "bf16", "f32")}
    program = str(lowered.compile().as_text())
    stacks = [leaf for leaf in rows(spec, stacked=True) if leaf.use.product]
    shapes = {",".join(map(str, leaf.shape)) for leaf in stacks}
    assert all(f"bf16[{shape}]" in program for shape in shapes)
    assert not [shape for shape in shapes if f"f32[{shape}]" in program]


@pytest.mark.slow
def test_they_do_on_a_mesh(base: Path, data: Path) -> None:
    """Four devices, in a process of its own: this file as a program."""
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": str(REPO)}
    child = [sys.executable, __file__, str(base), str(data)]
    done = subprocess.run(child, cwd=REPO, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def main(model: str, data: str) -> None:
    hardware = {"mesh": {"fsdp": 2, "tp": 2}, "replicate": "kv"}
    assert jax.device_count() == 4
    for case in CASES:
        arrays, shapes = both(case, TrainInputs.model_validate({"model": model, "data": data, "hardware": hardware}))
        assert arrays == shapes, case
        assert "num_partitions = 4" in arrays


if __name__ == "__main__":
    main(*sys.argv[1:])
