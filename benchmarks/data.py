"""The data stage beside its floor, in one run: `python benchmarks/data.py [--rows N] [--reps N] [--large] [--trl PY]`.

Rows are CodeV-R1-like (prompt, reasoning, answer with a fence), random, generated once below DIR with a tokenizer of
8,192 pieces trained on them. Floor: `encode_batch_fast` of the rendered strings with the library's own threads, in a
process of its own: in one call or in batches of 256, whichever is faster. Stage: `python -m data` from the rows file to
the shards. TRL: its own preparation, by a Python that has it. Every figure is the median of the reps.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[1]
LARGE = 200_000
MAX_LENGTH = 3072
PROSE = """the module samples its input on every rising edge of clock and holds output while enable is low reset returns
all registers to zero a counter wraps at its maximum value next state depends only current and request grant must stay
high for exactly three cycles shift left by one when load parity bit serial parallel most significant first width"""
SIGNALS = "clk rst_n en load din dout valid ready state next_state count sum carry grant req addr data_q mask busy"
WORDS, NAMES = PROSE.split(), SIGNALS.split()
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEMPLATE = """\
{{- bos_token -}}{%- for m in messages -%}
{{- '<|turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + m['content'] | trim + '<turn|>\\n' -}}
{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}{%- endif -%}"""
GENERATION = """\
{{- bos_token -}}{%- for m in messages -%}{%- if m['role'] == 'assistant' -%}
{{- '<|turn>model\n' -}}{%- generation -%}{{- m['content'] | trim + '<turn|>' -}}{%- endgeneration -%}{{- '\n' -}}
{%- else -%}{{- '<|turn>' + m['role'] + '\n' + m['content'] | trim + '<turn|>\n' -}}{%- endif -%}{%- endfor -%}"""
"""The same text, with the marks that TRL finds the answers by."""
CONTROL = ["<pad>", "<bos>", "<eos>", "<|turn>", "<turn|>"]
FLOOR = """
import json, sys, time
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
with open(sys.argv[2]) as f:
    texts = [json.loads(line) for line in f]
size, tokens = int(sys.argv[3]) or len(texts), 0
start, cpu = time.monotonic(), time.process_time()
for i in range(0, len(texts), size):
    found = tokenizer.encode_batch_fast(texts[i : i + size], add_special_tokens=False)
    tokens += sum(map(len, found))
seconds, cpu = time.monotonic() - start, time.process_time() - cpu
print(json.dumps({"seconds": seconds, "cpu": cpu, "tokens": tokens}))
"""
STAGE = """
import json, resource, sys, time
from common.stage import main
from data.config import DataConfig, DataInputs
from data.stage import run
start, cpu = time.monotonic(), time.process_time()
if code := main("data", run, DataConfig, DataInputs):
    sys.exit(code)
seconds, cpu = time.monotonic() - start, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}))
"""


def _name(rng: random.Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.6 else f"{rng.choice(NAMES)}_{rng.randrange(64)}"


def _sentence(rng: random.Random) -> str:
    words = [f"`{_name(rng)}`" if rng.random() < 0.12 else rng.choice(WORDS) for _ in range(rng.randint(8, 20))]
    return " ".join(words).capitalize() + "."


def _statement(rng: random.Random) -> str:
    value = f"({_name(rng)} {rng.choice('+-&|^')} {rng.choice((2, 4, 8))}'d{rng.randrange(16)})"
    kinds = (
        f"    assign {_name(rng)} = {value} ? {_name(rng)}[{rng.randrange(32)}:0] : {_name(rng)};",
        f"    always @(posedge clk) begin\n        if (!rst_n) {_name(rng)} <= 0;\n"
        f"        else {_name(rng)} <= {value};\n    end",
        f"    wire [{rng.randrange(1, 64)}:0] {_name(rng)};",
    )
    return rng.choice(kinds)


def rows(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Drawn from pools of lines, so that 200,000 rows take seconds; about 900 tokens each without their reasoning."""
    rng = random.Random(seed)
    sentences, statements = [_sentence(rng) for _ in range(20_000)], [_statement(rng) for _ in range(20_000)]
    for number in range(count):
        scale = min(3.2, max(0.25, rng.lognormvariate(-0.12, 0.5)))
        prose, thought = rng.choices(sentences, k=round(14 * scale) + 2), rng.choices(sentences, k=round(8 * scale) + 1)
        code = "\n".join(rng.choices(statements, k=round(14 * scale) + 2))
        fence = f"```verilog\nmodule m{number}(input clk, input rst_n);\n{code}\nendmodule\n```"
        response = f"<think>\n{' '.join(thought)}\n</think>\n<answer>\n{fence}\n</answer>"
        yield {"prompt": " ".join(prose), "response": response}


def rendered(row: dict[str, str]) -> str:
    answer = row["response"].partition("<answer>\n")[2].removesuffix("\n</answer>")
    return f"<bos><|turn>user\n{row['prompt']}<turn|>\n<|turn>model\n{answer}<turn|>\n"


def make_rows(place: Path, count: int) -> Path:
    path = place / f"rows-{count}.jsonl"
    if not path.is_file():
        with open(path, "w") as f, open(place / f"texts-{count}.jsonl", "w") as texts:
            for row in rows(count):
                f.write(json.dumps(row) + "\n")
                texts.write(json.dumps(rendered(row)) + "\n")
    return path


def make_tokenizer(folder: Path) -> None:
    if (folder / "tokenizer.json").is_file():
        return
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((row["prompt"] + "\n" + row["response"] for row in rows(3000)), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=CONTROL[3:],
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def _child(script: str, *arguments: str) -> dict[str, float]:
    answer = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def _trl(python: str, place: Path, path: Path) -> dict[str, float]:
    script = str(ROOT / "benchmarks" / "peers" / "trl_prep.py")
    command = [python, script, str(place / "model"), str(path), str(MAX_LENGTH), GENERATION]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def _stage(place: Path, path: Path, more: dict[str, object]) -> dict[str, float]:
    config = {"sources": [{"path": str(path)}], "max_length": MAX_LENGTH, **more}
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    job = place / "job.json"
    job.write_text(json.dumps({"config": config, "inputs": {"model": str(place / "model")}, "out": str(out)}))
    took = _child(STAGE, str(job))
    return {**json.loads((out / "metrics.json").read_text()), **took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--large", action="store_true", help=f"also the peak memory at {LARGE:,} rows")
    parser.add_argument("--trl", help="a Python that has trl, to be timed beside: trl==1.16.0 and torch, for one")
    parser.add_argument("--set", default="{}", help='more of the data section, as JSON: {"near_duplicates": 0.8}')
    parser.add_argument("--dir", type=Path, default=Path("runs/benchmarks/data"))
    given = parser.parse_args()
    given.dir.mkdir(parents=True, exist_ok=True)
    make_tokenizer(given.dir / "model")
    path, more = make_rows(given.dir, given.rows), json.loads(given.set)
    texts = given.dir / f"texts-{given.rows}.jsonl"
    floors, stages = [], []
    for _ in range(given.reps):
        ways = [_child(FLOOR, str(given.dir / "model" / "tokenizer.json"), str(texts), size) for size in ("0", "256")]
        floors.append(min(ways, key=lambda one: one["seconds"]))
        stages.append(_stage(given.dir, path, more))
    floor, stage = (statistics.median(one["seconds"] for one in many) for many in (floors, stages))
    last = stages[-1]
    print(f"{os.cpu_count()} cores, {given.rows:,} rows, medians of {given.reps}")
    print(f"floor: {floor:.2f} s for {floors[-1]['tokens']:,} tokens, CPU {floors[-1]['cpu']:.1f} s")
    print(f"stage: {stage:.2f} s for {last['tokens']:,} tokens, CPU {last['cpu']:.1f} s, peak {last['peak']:,.0f} MiB")
    print(f"stage / floor: {stage / floor:.2f} (bar 1.25); packing efficiency {last['efficiency']:.4f} (bar 0.97)")
    if given.trl:
        peers = [_trl(given.trl, given.dir, path) for _ in range(given.reps)]
        peer = statistics.median(one["seconds"] for one in peers)
        print(f"TRL: {peer:.2f} s for {peers[-1]['tokens']:,} tokens, peak {peers[-1]['peak']:,.0f} MiB")
        print(f"TRL / stage: {peer / stage:.2f} (bar 2.2)")
    if given.large:
        large = _stage(given.dir, make_rows(given.dir, LARGE), more)
        growth = large["peak"] / last["peak"] - 1
        print(f"peak at {LARGE:,} rows: {large['peak']:,.0f} MiB ({growth:+.1%}, bar 10 %), {large['seconds']:.1f} s")


if __name__ == "__main__":
    main()
