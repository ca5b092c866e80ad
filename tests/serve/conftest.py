"""A tiny random Gemma 4 with a tokenizer of its own, and a real server process over it, shared by these tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

ROOT = Path(__file__).parents[2]
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"]
EOS, TURN_END = 1, 5
WINDOW = 16
SLOTS, MAX_LENGTH, MAX_WAITING = 8, 176, 160
TEMPLATE = """{{- bos_token -}}{%- for m in messages -%}
{{- '<|turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + m['content'] + '<turn|>\\n' -}}
{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}{%- endif -%}"""


def write_tokenizer(folder: Path) -> int:
    """Train a byte-level BPE on a few sentences; returns its size."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=CONTROL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = "module counter input clock output reset always posedge begin end assign wire register logic endmodule user"
    tokenizer.train_from_iterator([text, text.upper(), "the answer is a design of a counter"] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": CONTROL[4:], **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return tokenizer.get_vocab_size()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    beyond: dict[str, Any] = {"num_global_key_value_heads": 1, "global_head_dim": 32}
    config = Gemma4TextConfig(
        vocab_size=write_tokenizer(folder),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        attention_k_eq_v=True,
        hidden_size_per_layer_input=0,
        final_logit_softcapping=30.0,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        eos_token_id=EOS,
        **beyond,
    )
    torch.manual_seed(0)
    model = Gemma4ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.1 * noise)
    model.generation_config.eos_token_id = [EOS, TURN_END]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reference(model_folder: Path) -> Gemma4ForCausalLM:
    """The same model in transformers, float32."""
    return Gemma4ForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    port: int

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=60)

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=60)

    def post(self, path: str, body: dict[str, object]) -> httpx.Response:
        return httpx.post(f"{self.url}/{path}", json=body, timeout=60)

    def metric(self, name: str) -> float:
        lines = httpx.get(f"http://127.0.0.1:{self.port}/metrics").text.splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))

    def await_metric(self, name: str, value: float) -> None:
        """Wait until a figure has the value, for as long as a slow machine may need."""
        end = time.monotonic() + 60
        while self.metric(name) != value:
            assert time.monotonic() < end, f"{name} stayed at {self.metric(name)}, not {value}"
            time.sleep(0.02)


def write_job(folder: Path, model: Path, *, probes: Path | None = None, **config: object) -> Path:
    (folder / "out").mkdir(exist_ok=True)
    inputs = {"model": str(model), "name": "tiny", "probes": str(probes) if probes else None}
    job = {"config": config, "inputs": inputs, "out": str(folder / "out")}
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def start(job: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serve", str(job)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **env},
        stderr=subprocess.PIPE,
        text=True,
    )


def await_ready(process: subprocess.Popen[str], out: Path) -> Server:
    end = time.monotonic() + 240
    while not (out / "endpoint.json").exists():
        if process.poll() is not None:
            raise AssertionError(f"the server ended: {process.communicate()[1]}")
        assert time.monotonic() < end, "the server was not ready in time"
        time.sleep(0.05)
    url = json.loads((out / "endpoint.json").read_text())["url"]
    return Server(process, url, int(url.split(":")[2].split("/")[0]))


@pytest.fixture(scope="session")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    job = write_job(folder, model_folder, slots=SLOTS, max_length=MAX_LENGTH, max_waiting=MAX_WAITING, decode_steps=4)
    process = start(job)
    try:
        ready = await_ready(process, folder / "out")
        yield ready
        ready.client.close()
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
