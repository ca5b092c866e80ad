"""Every family from a plain folder to an endpoint: each position's log-probability is that of transformers."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.adapters.test_peft import DOT, NAMED, add_zeros, respell, write_peft
from tests.models.families import FAMILIES, build
from tests.serve.conftest import await_ready, start, write_job, write_tokenizer

ALWAYS = {"gemma4 E2B"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in FAMILIES]
)
def test_echoed_logprobs(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    model: Any = build(name)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    process = start(write_job(tmp_path, folder, slots=2, max_length=64, decode_steps=4))
    try:
        server = await_ready(process, tmp_path / "out")
        ids = np.random.default_rng(1).integers(6, 90, 50).tolist()
        answer = server.client.completions.create(
            model="tiny", prompt=ids, max_tokens=0, echo=True, logprobs=1, temperature=0
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    with torch.no_grad():
        expected = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, :-1], -1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.token_logprobs is not None
    ours = np.array(logprobs.token_logprobs[1:], float)
    np.testing.assert_allclose(ours, expected[range(len(ids) - 1), ids[1:]].numpy(), atol=2e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_beside_its_base(tmp_path: Path) -> None:
    """Unmerged: prefill and decode complete as PEFT's own model does, whatever the keys are called and though some
    updates are zero, of what the base does not have."""
    model, base, adapter = write_peft("qwen3", tmp_path, rslora=False)
    add_zeros(adapter, "model.vision_tower.layers.0.q_proj")
    respell(adapter, lambda key: key.replace("model.layers.", "model.language_model.layers.").replace(DOT, NAMED))
    write_tokenizer(base)
    job = write_job(tmp_path, base, slots=2, max_length=64, decode_steps=4)
    content = json.loads(job.read_text())
    content["inputs"]["adapter"] = str(adapter)
    job.write_text(json.dumps(content))
    process = start(job)
    ids = np.random.default_rng(1).integers(6, 90, 20).tolist()
    try:
        server = await_ready(process, tmp_path / "out")
        answer = server.client.completions.create(
            model="tiny",
            prompt=ids,
            max_tokens=12,
            echo=True,
            logprobs=1,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    with torch.no_grad():
        made = model.generate(input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=12, min_new_tokens=12)
        expected = torch.log_softmax(model(input_ids=made).logits[0, :-1], -1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.token_logprobs is not None
    ours = np.array(logprobs.token_logprobs[1:], float)
    want = expected[range(len(ours)), made[0, 1 : len(ours) + 1]].numpy()
    np.testing.assert_allclose(ours, want, atol=2e-4)
    assert len(ours) == 31
