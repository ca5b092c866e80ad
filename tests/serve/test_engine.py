"""The engine without a server: what its programs are, and what they are given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

from models.families import read_spec
from models.folder.abstract import abstract_decoder
from models.folder.load import load_decoder
from models.quant.layout import Mode
from models.text.prompt import load_tokenizer
from serve.config import ServeConfig
from serve.engine.definitions import Definitions, empty_carry, empty_slots
from serve.engine.engine import Engine, generate
from serve.engine.request import Request, Sampling, Token
from serve.stage import build_engine

LENGTHS = (2, 9, 30, 40, 60, 129, 135, 20)
PROMPTS = [tuple(np.random.default_rng(i).integers(6, 380, length).tolist()) for i, length in enumerate(LENGTHS)]


def engine_of(model_folder: Path, **config: Any) -> Engine:
    return build_engine(ServeConfig(**config), str(model_folder), load_tokenizer(str(model_folder)))[0]


def drawn_by(engine: Engine, numbers: Sequence[int], n: int = 2) -> dict[int, list[list[Token]]]:
    """Tokens of n samples of the prompts of these numbers, asked for together; every second one is greedy."""
    sampling = [Sampling(0.9 * (i % 2), top_p=0.9, seed=i, max_tokens=5 + i % 4, ignore_end=True) for i in numbers]
    requests = [Request(i, PROMPTS[i], n, how) for i, how in zip(numbers, sampling, strict=True)]
    flat = generate(engine, requests)
    return {i: flat[k * n : (k + 1) * n] for k, i in enumerate(numbers)}


@pytest.mark.parametrize(("dtype", "steps"), [("bfloat16", "auto"), ("float32", 3)])
def test_a_sample_is_the_same_to_the_bit_in_any_company(model_folder: Path, dtype: str, steps: str | int) -> None:
    """Tokens and log-probabilities: alone, among others that come and go, in another order, in a cache that holds what
    earlier ones left; and nothing is compiled for it."""
    engine = engine_of(model_folder, slots=5, max_length=160, dtype=dtype, decode_steps=steps)
    engine.programs.warm_up()
    programs, compiled = len(engine.programs), []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    together = drawn_by(engine, range(len(PROMPTS)))
    assert together == drawn_by(engine, range(len(PROMPTS) - 1, -1, -1))
    for number in range(len(PROMPTS)):
        assert drawn_by(engine, [number])[number] == together[number]
    assert len(engine.programs) == programs
    assert not [event for event in compiled if "backend_compile" in event]


def test_greedy_tokens_are_those_of_transformers(model_folder: Path, reference: Any) -> None:
    """One step a dispatch, as on CPU, with prompts of one token and longer than the window."""
    engine = engine_of(model_folder, slots=3, max_length=160)
    assert engine.programs.steps == 1
    prompts = [PROMPTS[3][:1], *PROMPTS]
    sampling = Sampling(temperature=0.0, max_tokens=24, ignore_end=True)
    ours = generate(engine, [Request(i, prompt, 1, sampling) for i, prompt in enumerate(prompts)])
    for prompt, tokens in zip(prompts, ours, strict=True):
        made = reference.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24, min_new_tokens=24)
        assert [token.id for token in tokens] == made[0, len(prompt) :].tolist()


def test_what_is_cancelled_under_way_leaves_no_trace(model_folder: Path) -> None:
    """Its slot goes to the next sample while the device still draws for it."""
    engine = engine_of(model_folder, slots=2, max_length=160)
    expected = drawn_by(engine, [0, 1])
    sampling = Sampling(temperature=1.0, max_tokens=40, seed=9, ignore_end=True)
    for steps in range(1, 5):
        engine.deliver = lambda events: None
        engine.submit([Request(100 + steps, PROMPTS[2], 2, sampling)])
        for _ in range(steps):
            engine.pending()
            engine.step()
        engine.cancel(100 + steps)
        assert drawn_by(engine, [0, 1]) == expected


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="it is what XLA does on CPU")
def test_keys_and_values_are_written_where_they_lie(model_folder: Path) -> None:
    """Of what only moves bfloat16, XLA on CPU converts nothing and makes no copy of the cache."""
    engine = engine_of(model_folder, slots=4, max_length=128, dtype="bfloat16")
    engine.programs.warm_up()
    cache = sum(array.nbytes for array in jax.tree.leaves(engine.programs._cache))
    for key in ("flush", 4), ("place", 128):
        program: Any = engine.programs._compiled[key]
        assert "f32[" not in program.as_text()
        memory = program.memory_analysis()
        assert memory.alias_size_in_bytes == cache
        assert memory.temp_size_in_bytes < cache / 2


def test_what_a_program_was_given_never_changes(model_folder: Path) -> None:
    """Other devices may still read a host array when the call that it was given to has returned."""
    config = ServeConfig(slots=3, max_length=48, decode_steps=2)
    engine, _ = build_engine(config, str(model_folder), load_tokenizer(str(model_folder)))
    given: list[tuple[np.ndarray, np.ndarray]] = []
    run = engine.programs.run

    def watched(name: str, size: int, *args: Any) -> Any:
        held = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, np.ndarray)]
        given.extend((array, array.copy()) for array in held)
        return run(name, size, *args)

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
    runs = real.jitted("prefill").lower(real.state, np.zeros((1, 32), np.int32)).as_text()
    assert shapes.lower_prefill(32).as_text() == runs
    runs = real.jitted("decode").lower(real.empty_cache(), real.state, empty_carry(3), empty_slots(3)).as_text()
    assert shapes.lower_decode().as_text() == runs
