"""Shrunken Gemma 4 models in Hugging Face layout, and adapters in the train stage's layout, with random contents."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from common.digests.model import base_digest
from convert.config import ConvertConfig, ConvertInputs
from convert.stage import run
from models.families import read_spec, rows
from models.leaf import lora_shapes
from tests.shapes import TINY

MakeBase = Callable[..., Path]
MakeAdapter = Callable[..., Path]


def save_checkpoint(folder: Path, step: int, arrays: dict[str, np.ndarray]) -> None:
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        values = {key: jnp.asarray(value) for key, value in arrays.items()}
        manager.save(step, args=ocp.args.Composite(trained=ocp.args.StandardSave(values)))
        manager.wait_until_finished()


@pytest.fixture
def make_base(tmp_path: Path) -> MakeBase:
    def make(name: str = "base", dtype: str = "float32", shard: str = "1GB", seed: int = 0, **changes: Any) -> Path:
        torch.manual_seed(seed)
        model = Gemma4ForCausalLM(Gemma4TextConfig(**{**TINY, **changes})).to(getattr(torch, dtype))
        folder = tmp_path / name
        model.save_pretrained(folder, max_shard_size=shard)
        (folder / "tokenizer.json").write_text('{"any": "bytes"}')
        (folder / "chat_template.jinja").write_bytes(b"{{ '\xc3\xa9' }}\r\n")
        return folder

    return make


def write_adapter(folder: Path, base: Path, steps: tuple[int, ...], exact: bool, size: float) -> None:
    """An adapter of every product of the layers, as the train stage writes it.

    `exact`: multiples of 1/64 so small that float32 forms the products and sums without rounding.
    """
    random = np.random.default_rng(1)
    rank, alpha = 4, 8.0
    adapted = [leaf for leaf in rows(read_spec(str(base)), stacked=True) if leaf.use.product and leaf.use.adaptable]
    for step in steps:
        arrays = {}
        for leaf in adapted:
            for half, shape in zip("ab", lora_shapes(leaf, rank), strict=True):
                drawn = random.integers(-8, 9, shape) / 64 if exact else size * random.standard_normal(shape)
                arrays[f"{leaf.path}.lora_{half}"] = drawn.astype(np.float32)
        save_checkpoint(folder, step, arrays)
    targets = list(dict.fromkeys(leaf.target for leaf in adapted))
    about = {"method": "lora", "rank": rank, "alpha": alpha, "targets": targets, "step": steps[-1]}
    (folder / "adapter.json").write_text(json.dumps({**about, "base_digest": base_digest(base)}))


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    def make(
        base: Path, name: str = "adapter", steps: tuple[int, ...] = (7,), exact: bool = False, size: float = 0.1
    ) -> Path:
        write_adapter(tmp_path / name, base, steps, exact, size)
        return tmp_path / name

    return make


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    def call(base: Path, adapter: Path, name: str = "out", **config: Any) -> tuple[Path, dict[str, Any]]:
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        return out, run(ConvertConfig(**config), ConvertInputs(base=str(base), adapter=str(adapter)), out)

    return call


@pytest.fixture
def arrays_of() -> Callable[[Path, int], dict[str, np.ndarray]]:
    def read(adapter: Path, step: int = 7) -> dict[str, np.ndarray]:
        with ocp.StandardCheckpointer() as reader:
            return {
                k: np.asarray(v) for k, v in reader.restore(adapter / "checkpoints" / str(step) / "trained").items()
            }

    return read


@pytest.fixture
def rewrite() -> Callable[[Path, dict[str, np.ndarray]], None]:
    """Save another step (8) with these arrays."""
    return lambda adapter, arrays: save_checkpoint(adapter, 8, arrays)
