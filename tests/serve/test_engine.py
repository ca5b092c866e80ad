"""The engine without a server: what its programs are given, and when."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from models.text.prompt import load_tokenizer
from serve.config import ServeConfig
from serve.engine.engine import generate
from serve.engine.request import Request, Sampling
from serve.stage import build_engine


def test_what_a_program_was_given_never_changes(model_folder: Path) -> None:
    """Other devices may still read a host array when the call that it was given to has returned."""
    config = ServeConfig(slots=3, max_length=48, decode_steps=2)
    engine, _ = build_engine(config, str(model_folder), load_tokenizer(str(model_folder)))
    given: list[tuple[np.ndarray, np.ndarray]] = []
    run = engine.programs.run

    def watched(name: str, size: int, function: Any, *args: Any) -> Any:
        held = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, np.ndarray)]
        given.extend((array, array.copy()) for array in held)
        return run(name, size, function, *args)

    engine.programs.run = watched
    sampling = Sampling(temperature=1.0, max_tokens=6, seed=5, ignore_end=True)
    requests = [Request(i, tuple(range(7, 12 + i)), 2, sampling) for i in range(3)]
    assert [len(tokens) for tokens in generate(engine, requests)] == [6] * 6
    assert len(given) > 30
    assert all(np.array_equal(array, before) for array, before in given)
