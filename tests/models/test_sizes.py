"""A plan's bytes are those of the decoder that loading builds, and its refusals are loading's own."""

import json
import os
import subprocess
import sys

from benchmarks.shapes import published
from models.folder.sizes import sizes_of, weight_bytes
from models.quant.layout import Mode
from tests.pipeline.conftest import ASSETS, REPO

WEIGHTS: tuple[Mode | None, ...] = (None, "int8", "int4")
CASES: list[tuple[str, dict[str, int], Mode | None]] = [
    (name, sizes, weights)
    for name in ("gemma4-31b", "qwen3-32b", "llama3.1-8b")
    for sizes in ({}, {"fsdp": 4}, {"tp": 4}, {"data": 2, "fsdp": 2, "tp": 2})
    for weights in WEIGHTS
]
HELD = """
import json, math, sys
import jax
from benchmarks.shapes import published
from models.folder.abstract import abstract_decoder
from models.mesh import AXES, laid_out

def held(name, sizes, weights):
    shape = [sizes.get(axis, 1) for axis in AXES]
    mesh = laid_out(shape, jax.devices()[: math.prod(shape)])
    arrays = jax.tree.leaves(abstract_decoder(published(name, 6), "bfloat16", True, mesh, weights))
    return sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in arrays)

print(json.dumps([held(*case) for case in json.loads(sys.argv[1])]))
"""


def test_bytes_on_a_device_are_those_of_the_decoder() -> None:
    """Over real meshes, in a process with devices enough for them."""
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", HELD, json.dumps(CASES)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    found = [weight_bytes(published(name, 6), sizes, "bfloat16", weights) for name, sizes, weights in CASES]
    assert found == json.loads(done.stdout)


def test_each_stage_is_fitted_or_refused_by_itself() -> None:
    folder = str(ASSETS / "tiny-gemma4")
    hardware = {"mesh": {"fsdp": 3}}
    train = {"devices": 4, "hardware": hardware, "batch": 4, "accumulate": 1, "dtype": "float32", "weights": None}
    serve = {"devices": 2, "tp": 64, "replicate": "none", "dtype": "float32", "weights": None}
    found = sizes_of({"model": folder, "train": train, "serve": serve})
    assert "4 devices" in found["train"]["refused"]["what"] and found["train"]["refused"]["fix"]
    assert "tp = 64" in found["serve"]["refused"]["what"]
    found = sizes_of({"model": folder, "train": train | {"hardware": {"mesh": {"fsdp": 4}}, "batch": 6}})
    assert found["train"]["refused"]["where"] == "train.batch_size" and "serve" not in found
    halves = {"hardware": {"mesh": {"fsdp": 4}}, "batch": 8, "accumulate": 4}
    assert "4 micro batches" in sizes_of({"model": folder, "train": train | halves})["train"]["refused"]["what"]
    one = sizes_of({"model": folder, "train": train | {"devices": 1, "hardware": {}}})
    assert one["train"]["weights"] == 4 * one["parameters"] and one["train"]["mesh"] == {"fsdp": 1, "tp": 1}
