"""Serving spread over devices: the same greedy tokens as transformers, on eight virtual ones."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import await_ready, start, write_job
from tests.serve.test_server import greedy, random_prompts, token_ids


@pytest.mark.parametrize("tp", ["auto", pytest.param(2, marks=pytest.mark.slow)])
def test_greedy_tokens_are_those_of_transformers(
    model_folder: Path, reference: Any, tmp_path: Path, tp: str | int
) -> None:
    job = write_job(tmp_path, model_folder, slots=4, max_length=128, decode_steps=4, tp=tp)
    process = start(job, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    try:
        server = await_ready(process, tmp_path / "out")
        prompts = random_prompts(3, (20, 60))
        assert token_ids(server, prompt=prompts, temperature=0, max_tokens=30) == [
            greedy(reference, prompt, 30) for prompt in prompts
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert ("tp = 4 is the most that this model's sizes allow: 4 devices stay idle" in errors) == (tp == "auto")


@pytest.mark.parametrize(
    ("tp", "what"),
    [
        (3, "num_attention_heads = 4: tp = 3"),
        pytest.param(16, "tp = 16, but there are 8 devices", marks=pytest.mark.slow),
    ],
)
def test_a_tp_that_cannot_be(model_folder: Path, tmp_path: Path, tp: int, what: str) -> None:
    job = write_job(tmp_path, model_folder, slots=4, max_length=128, tp=tp)
    process = start(job, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in errors) == (2, False), errors
    assert what in errors and "serve.tp" in errors
