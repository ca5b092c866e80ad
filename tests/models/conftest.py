"""Shrunken Gemma 4 models in Hugging Face layout, with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from tests.shapes import GLOBAL, SLIDING, TINY

SHAPE = TINY | {
    "vocab_size": 512,
    "vocab_size_per_layer_input": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "head_dim": 16,
    "global_head_dim": 32,
}
PATTERNS = {
    "two periods": [SLIDING, SLIDING, GLOBAL] * 2,
    "a tail": [SLIDING, SLIDING, GLOBAL, SLIDING, GLOBAL],
    "global only": [GLOBAL, GLOBAL],
}


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Gemma4ForCausalLM]]:
    """A folder and the transformers model in it; layer kinds by the name of a pattern."""
    made: dict[str, tuple[Path, Gemma4ForCausalLM]] = {}

    def make(pattern: str) -> tuple[Path, Gemma4ForCausalLM]:
        if pattern not in made:
            torch.manual_seed(0)
            layers = PATTERNS[pattern]
            shape: dict[str, Any] = {**SHAPE, "num_hidden_layers": len(layers), "layer_types": layers}
            model = Gemma4ForCausalLM(Gemma4TextConfig(**shape)).eval()
            with torch.no_grad():
                for name, value in (*model.named_parameters(), *model.named_buffers()):
                    if "norm" in name:
                        value.copy_(1 + 0.2 * torch.randn_like(value))
                    elif "layer_scalar" in name:
                        value.copy_(0.5 + torch.rand_like(value))
            folder = tmp_path_factory.mktemp("model")
            model.save_pretrained(folder)
            made[pattern] = folder, model
        return made[pattern]

    return make
