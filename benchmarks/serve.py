"""Generation beside its peers, in turns within one run: `python -m benchmarks.serve [--shape ...] [--work ...]`.

Random weights in the shape of Gemma 3 270M or Qwen3 0.6B, bfloat16. `decode`: 16 prompts of 128 tokens, 64 greedy
tokens each; `one`: one of them. `eval`: 8 problems of 256 tokens, 5 samples of 96 at temperature 0.8, top_p 0.95;
`eval1` at top_p 1. Peers: transformers of this environment; vLLM where PY_VLLM, or BENCH_HOME/vvllm/bin/python, is a
Python that has it. Each is one process, asked by turns with fresh prompts: medians, ratios those of each turn (CPU
time's tells more beside busy neighbours). A step: the whole less the same with one token, by the tokens between. Floor:
the weights' bytes over the rate at which this machine reads memory, measured in each turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from benchmarks.cpu import cpu_seconds
from common.machine import cores

CHILD = Path(__file__).parent / "peers" / "generators.py"
PROBE_BYTES = 1 << 28


@dataclass(frozen=True)
class Work:
    prompts: int
    length: int
    n: int
    new: int
    temperature: float = 0.0
    top_p: float = 1.0

    @property
    def sequences(self) -> int:
        return self.prompts * self.n


WORKS = {
    "decode": Work(16, 128, 1, 64),
    "eval": Work(8, 256, 5, 96, 0.8, 0.95),
    "eval1": Work(8, 256, 5, 96, 0.8, 1.0),
    "one": Work(1, 128, 1, 64),
}


def write_model(shape: str, folder: Path) -> int:
    """Random weights and a tokenizer that nobody asks; returns the weights' bytes."""
    torch.manual_seed(0)
    if shape == "qwen3-0.6b":
        sizes: dict[str, Any] = {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
        sizes |= {"hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128, "tie_word_embeddings": True}
        model: Any = Qwen3ForCausalLM(Qwen3Config(vocab_size=151_936, **sizes))
    else:
        sizes = {"num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256}
        sizes |= {"hidden_size": 640, "intermediate_size": 2048, "sliding_window": 512, "query_pre_attn_scalar": 256}
        model = Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=262_144, **sizes))
    model.to(torch.bfloat16).save_pretrained(folder)
    words = Tokenizer(WordLevel({"<eos>": 0, "<pad>": 1}, unk_token="<eos>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<pad>").save_pretrained(folder)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


class Peer:
    """A child that generates when asked."""

    def __init__(self, name: str, python: str, model: Path, work: Work, log: Path):
        self.name, self.seconds, self.first, self.cpu = name, [], [], []
        length = str(work.length + work.new)
        command = [python, "-P", str(CHILD), name, str(model), str(work.sequences), length]
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        print(f"{name}: ready after {self._answer(log)['ready']:.0f} s", flush=True)

    def _answer(self, log: Path | None = None) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended: {log.read_text()[-2000:] if log else ''}")
        return json.loads(line)

    def generate(self, work: Work, new: int, seed: int) -> float:
        rng = np.random.default_rng(seed)
        asked = {"prompts": rng.integers(5, 1000, (work.prompts, work.length)).tolist(), "n": work.n, "new": new}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked | {"temperature": work.temperature, "top_p": work.top_p}) + "\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def memory_rate() -> float:
    """Bytes a second that all cores read together, the best of three."""
    parts = [np.ones(PROBE_BYTES // 8 // cores(), np.int64) for _ in range(cores())]
    best = 0.0
    with ThreadPoolExecutor(cores()) as pool:
        for _ in range(3):
            began = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = max(best, PROBE_BYTES / (time.perf_counter() - began))
    return best


def peers(model: Path, work: Work, wanted: list[str], logs: Path) -> list[Peer]:
    vllm = os.environ.get("PY_VLLM") or str(Path(os.environ.get("BENCH_HOME", ".")) / "vvllm/bin/python")
    pythons = {"tapeout": sys.executable, "transformers": sys.executable, "vllm": vllm}
    found = [name for name in pythons if name in wanted and Path(pythons[name]).exists()]
    return [Peer(name, pythons[name], model, work, logs / f"{name}.log") for name in found]


def measure(model: Path, weights: int, work: Work, wanted: list[str], turns: int) -> None:
    with tempfile.TemporaryDirectory() as logs:
        running = peers(model, work, wanted, Path(logs))
        for peer in running:
            peer.generate(work, work.new, 0)
        floors = []
        for turn in range(1, turns + 1):
            floors.append(weights / memory_rate())
            for peer in running:
                peer.first.append(peer.generate(work, 1, 2 * turn))
                before = cpu_seconds(peer.process.pid)
                peer.seconds.append(peer.generate(work, work.new, 2 * turn + 1))
                peer.cpu.append(cpu_seconds(peer.process.pid) - before)
                told = f"{peer.seconds[-1]:.2f} s, of CPU {peer.cpu[-1]:.2f}; with one token {peer.first[-1]:.2f} s"
                print(f"  turn {turn}, {peer.name}: {told}", flush=True)
        for peer in running:
            peer.end()
    report(running, work, floors)


def steps(peer: Peer, work: Work) -> list[float]:
    """Seconds of a decode step, by turn."""
    return [(whole - first) / (work.new - 1) for whole, first in zip(peer.seconds, peer.first, strict=True)]


def report(running: list[Peer], work: Work, floors: list[float]) -> None:
    floor = statistics.median(floors)
    print(f"floor of a step, the weights read once: {floor * 1e3:.0f} ms")
    ours = running[0]
    for peer in running:
        whole, first, step = (statistics.median(x) for x in (peer.seconds, peer.first, steps(peer, work)))
        line = f"{peer.name:12} {work.sequences * work.new / whole:6.1f} tokens/s, {work.sequences / whole:5.2f} "
        line += "samples/s; "
        line += f"prompts and a token {first:.2f} s, a step {step * 1e3:.0f} ms ({step / floor:.2f} x floor)"
        if peer is not ours:
            told = {"all": (peer.seconds, ours.seconds), "prompts": (peer.first, ours.first)}
            told |= {"step": (steps(peer, work), steps(ours, work)), "CPU time of all": (peer.cpu, ours.cpu)}
            ratios = (
                f"{name} {statistics.median(a / b for a, b in zip(theirs, mine, strict=True)):.2f}"
                for name, (theirs, mine) in told.items()
            )
            line += f"; {ours.name} is faster by {', '.join(ratios)}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", nargs="+", default=["gemma3-270m", "qwen3-0.6b"])
    parser.add_argument("--work", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--peer", nargs="+", default=["vllm", "transformers"])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as folder:
            weights = write_model(shape, Path(folder))
            for name in options.work:
                print(f"{shape}, {name}: {WORKS[name]}, {cores()} cores, load before {os.getloadavg()[0]:.1f}")
                measure(Path(folder), weights, WORKS[name], ["tapeout", *options.peer], options.turns)


if __name__ == "__main__":
    main()
