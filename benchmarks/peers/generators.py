"""One engine as a child of `benchmarks.serve`: `python generators.py tapeout|vllm|transformers MODEL SEQUENCES LENGTH`.

Says "ready" in JSON, then answers each line {"prompts", "n", "new", "temperature", "top_p"} with the seconds that it
took to generate all of them. Run by the Python of the environment that has this engine, and imports no other.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[list[list[int]], int, int, float, float], int]
"""(prompts, samples of each, new tokens, temperature, top_p) -> tokens generated"""


def tapeout(model: str, sequences: int, length: int) -> Work:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from models.text.prompt import load_tokenizer  # noqa: PLC0415
    from serve.config import ServeConfig  # noqa: PLC0415
    from serve.engine.engine import generate  # noqa: PLC0415
    from serve.engine.request import Request, Sampling  # noqa: PLC0415
    from serve.stage import build_engine  # noqa: PLC0415

    config = ServeConfig(slots=max(2, sequences), max_length=length, dtype="bfloat16", max_waiting=4096)
    engine, _ = build_engine(config, model, load_tokenizer(model))
    engine.programs.warm_up()

    def work(prompts: list[list[int]], n: int, new: int, temperature: float, top_p: float) -> int:
        drawn = Sampling(temperature=temperature, top_p=top_p, max_tokens=new, ignore_end=True)
        return sum(map(len, generate(engine, [Request(i, tuple(p), n, drawn) for i, p in enumerate(prompts)])))

    return work


def vllm(model: str, sequences: int, length: int) -> Work:
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    engine: Any = LLM(model, max_model_len=length, dtype="bfloat16", max_num_seqs=sequences)

    def work(prompts: list[list[int]], n: int, new: int, temperature: float, top_p: float) -> int:
        drawn = SamplingParams(n=n, temperature=temperature, top_p=top_p, max_tokens=new, ignore_eos=True)
        made = engine.generate([{"prompt_token_ids": p} for p in prompts], drawn, use_tqdm=False)
        return sum(len(each.token_ids) for one in made for each in one.outputs)

    return work


def transformers(model: str, sequences: int, length: int) -> Work:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    def work(prompts: list[list[int]], n: int, new: int, temperature: float, top_p: float) -> int:
        ids = torch.tensor(prompts)
        how: dict[str, Any] = {"do_sample": False}
        if temperature:
            how = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        with torch.inference_mode():
            made = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                num_return_sequences=n,
                pad_token_id=0,
                **how,
            )
        return (made.shape[1] - ids.shape[1]) * made.shape[0]

    return work


def main() -> None:
    name, model, sequences, length = sys.argv[1:5]
    said, sys.stdout = sys.stdout, sys.stderr
    began = time.monotonic()
    engines: dict[str, Callable[[str, int, int], Work]] = {
        "tapeout": tapeout,
        "vllm": vllm,
        "transformers": transformers,
    }
    work = engines[name](model, int(sequences), int(length))
    print(json.dumps({"ready": time.monotonic() - began}), file=said, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        order = ("prompts", "n", "new", "temperature", "top_p")
        tokens = work(*(asked[key] for key in order))
        seconds = time.monotonic() - began
        assert tokens == len(asked["prompts"]) * asked["n"] * asked["new"], tokens
        print(json.dumps({"seconds": seconds}), file=said, flush=True)


if __name__ == "__main__":
    main()
