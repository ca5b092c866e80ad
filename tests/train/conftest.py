"""A shrunken Gemma 4 with random weights, packed rows, and the train stage as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from models.text.packed_rows import PackedRow, write_shards
from tests.shapes import TINY

REPO = Path(__file__).parents[2]
LENGTH = 32


def conversations(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, mask) of short, learnable sequences: the second half repeats the first and is supervised."""
    random = np.random.default_rng(0)
    out = []
    for _ in range(count):
        half = random.integers(3, 64, random.integers(3, 8)).astype(np.int32)
        out.append((np.concatenate([half, half]), np.arange(2 * len(half)) >= len(half)))
    return out


def packed(parts: list[tuple[np.ndarray, np.ndarray]]) -> PackedRow:
    ids, masks = zip(*parts, strict=True)
    return PackedRow(np.concatenate(ids), np.concatenate(masks), np.array([len(each) for each in ids]))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    Gemma4ForCausalLM(Gemma4TextConfig(**TINY)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [packed(conversations(60)[2 * i : 2 * i + 2]) for i in range(30)]
    write_shards(rows[:24], folder / "train")
    write_shards(rows[24:], folder / "validation")
    (folder / "dataset.json").write_text(json.dumps({"max_length": LENGTH}))
    return folder


@pytest.fixture
def job(job_in: Callable[..., tuple[Path, Path]], tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write a job file; gives it and its output folder."""
    return partial(job_in, tmp_path)


@pytest.fixture(scope="session")
def job_in(base: Path, data: Path) -> Callable[..., tuple[Path, Path]]:
    def make(folder: Path, name: str, hardware: dict[str, Any] | None = None, **config: Any) -> tuple[Path, Path]:
        out = folder / name
        out.mkdir()
        defaults = {"steps": 6, "batch_size": 4, "log_every": 1, "checkpoint_every": 2, "warmup_steps": 1}
        lora = {"rank": 2, "alpha": 4}
        path = folder / f"{name}.json"
        inputs = {"model": str(base), "data": str(data), "hardware": hardware or {}}
        content = {"config": {**defaults, "lora": lora, **config}, "inputs": inputs, "out": str(out)}
        path.write_text(json.dumps(content))
        return path, out

    return make


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    def run(job: Path, devices: int = 1) -> subprocess.Popen[str]:
        env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        command = [sys.executable, "-m", "train", str(job)]
        return subprocess.Popen(command, cwd=REPO, env=env, stderr=subprocess.PIPE, text=True)

    return run


def trained_arrays(out: Path) -> dict[str, np.ndarray]:
    """Trained arrays of the last checkpoint, read as numpy whatever devices wrote them."""
    folder = out / "checkpoints" / str(max(int(path.name) for path in (out / "checkpoints").iterdir()))
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(trained=ocp.PyTreeCheckpointHandler())) as reader:
        shapes = reader.metadata(folder).item_metadata["trained"].tree
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in shapes}
        args = ocp.args.PyTreeRestore(item=dict.fromkeys(shapes, 0), restore_args=as_numpy)
        return reader.restore(folder, args=ocp.args.Composite(trained=args))["trained"]


def log_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
