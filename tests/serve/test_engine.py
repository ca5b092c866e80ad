"""The engine without a server: what its programs are, and what they are given."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from models.families import read_spec
from models.folder.abstract import abstract_decoder
from models.folder.load import load_decoder
from models.quant.layout import Mode
from models.text.prompt import load_tokenizer
from serve.config import ServeConfig
from serve.engine.definitions import Definitions, empty_carry, empty_slots
from serve.engine.engine import generate
from serve.engine.request import Request, Sampling
from serve.stage import build_engine


def test_what_a_program_was_given_never_changes(model_folder: Path) -> None:
    """Other devices may still read a host array when the call that it was given to has returned."""
    config = ServeConfig(slots=3, max_length=48, decode_steps=2)
    engine, _ = build_engine(config, str(model_folder), load_tokenizer(str(model_folder)))
    given: list[tuple[np.ndarray, np.ndarray]] = []
    run = engine.programs.run

    def watched(name: str, size: int, *args: Any, rows: int = 1) -> Any:
        held = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, np.ndarray)]
        given.extend((array, array.copy()) for array in held)
        return run(name, size, *args, rows=rows)

    engine.programs.run = watched
    sampling = Sampling(temperature=1.0, max_tokens=6, seed=5, ignore_end=True)
    requests = [Request(i, tuple(range(7, 12 + i)), 2, sampling) for i in range(3)]
    assert [len(tokens) for tokens in generate(engine, requests)] == [6] * 6
    assert len(given) > 30
    assert all(np.array_equal(array, before) for array, before in given)
    live = jax.tree.leaves(engine._slots)
    assert not any(np.shares_memory(array, own) for array, _ in given for own in live)


@pytest.mark.parametrize("weights", [None, pytest.param("int8", marks=pytest.mark.slow)])
def test_programs_from_shapes_are_those_that_serve(model_folder: Path, weights: Mode | None) -> None:
    """What a planner or a compiler sees is what runs, to the letter of the lowered program."""
    spec = read_spec(str(model_folder))
    real = Definitions(load_decoder(str(model_folder), "float32", False, weights=weights), 3, 48, 2, frozenset({1}))
    shapes = Definitions(abstract_decoder(spec, "float32", False, weights=weights), 3, 48, 2, frozenset({1}))
    runs = real.jitted("prefill", 2).lower(real.state, np.zeros((2, 32), np.int32)).as_text()
    assert shapes.lower_prefill(32, 2).as_text() == runs
    runs = real.jitted("decode").lower(real.empty_cache(), real.state, empty_carry(3), empty_slots(3)).as_text()
    assert shapes.lower_decode().as_text() == runs
