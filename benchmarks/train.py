"""A LoRA step of ours beside an earlier checkout of ours and beside peers, in alternating runs on one machine.

`python -m benchmarks.train MODEL --against CHECKOUT --peers FOLDER --peer-python PYTHON`: rank 16 on all seven
projections, bfloat16 base, `--rows` x `--length` tokens, remat full, random weights and ids. Every run is a process of
its own: ours is `python -m train` on rows written for it, a peer is FOLDER/train_trl.py. Three tasks: full rows;
log-normal lengths (mean 200), packed; full rows of which 40 % are supervised. Wall time, processor time and peak memory
are of a step after the first two; the floor is the arithmetic of a step at the machine's own rate of products.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.families import read_spec, rows
from models.spec import DecoderSpec
from models.text.packed_rows import PackedRow, write_shards
from train.head import Form, Table, chunk_of, cross_entropy

HERE = Path(__file__).parents[1]
WARM, RANK = 2, 16
TASKS = ("full", "lognormal", "supervised")
SUPERVISED = 0.4


@dataclass(frozen=True)
class Shape:
    rows: int
    length: int
    steps: int
    """Timed ones."""


def lengths(shape: Shape, task: str) -> Iterator[list[int]]:
    """Of the segments of one row after another."""
    random = np.random.default_rng(7)
    spare: list[int] = []
    while True:
        if task != "lognormal":
            yield [shape.length]
            continue
        spare += [int(n) for n in np.clip(random.lognormal(np.log(200) - 0.18, 0.6, 64), 16, shape.length)]
        row: list[int] = []
        for n in sorted(spare, reverse=True):  # best fit, decreasing
            if sum(row) + n <= shape.length:
                row.append(n)
                spare.remove(n)
        yield row


def write_rows(shape: Shape, task: str, folder: Path) -> float:
    """Write packed rows for a run; returns the share of real tokens."""
    random = np.random.default_rng(0)
    made: list[PackedRow] = []
    for segments in lengths(shape, task):
        total = sum(segments)
        kept = SUPERVISED if task == "supervised" else 1.0
        mask = np.concatenate([np.arange(n) >= n - round(kept * n) for n in segments])
        made.append(PackedRow(random.integers(5, 1000, total).astype(np.int32), mask, np.array(segments)))
        if len(made) == shape.rows * (shape.steps + WARM):
            break
    write_shards(made, folder / "train")
    write_shards([], folder / "validation")
    (folder / "dataset.json").write_text(json.dumps({"max_length": shape.length}))
    return sum(len(row.ids) for row in made) / (len(made) * shape.length)


def timed(command: list[str], cwd: Path) -> tuple[str, float, int]:
    """(standard output, CPU seconds, peak MiB) of a process that must end well."""
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command} ended with {child.returncode}")
    return said, used.ru_utime + used.ru_stime, used.ru_maxrss >> 10


def ours(checkout: Path, model: str, shape: Shape, data: Path) -> dict[str, float]:
    """Real tokens a second, processor time and memory of the stage as a process in `checkout`."""
    with tempfile.TemporaryDirectory() as folder:
        out, job = Path(folder) / "out", Path(folder) / "job.json"
        out.mkdir()
        steps = shape.steps + WARM
        config = {"steps": steps, "batch_size": shape.rows, "log_every": 1, "checkpoint_every": steps}
        config |= {"lora": {"rank": RANK, "alpha": 2 * RANK}, "warmup_steps": 0}
        inputs = {"model": model, "data": str(data), "dtype": "bfloat16"}
        job.write_text(json.dumps({"config": config, "inputs": inputs, "out": str(out)}))
        own = checkout / ".venv/bin/python"
        python = str(own) if own.exists() else sys.executable
        _, cpu, peak = timed([python, "-m", "train", str(job)], checkout)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line][WARM:]
    return {"tokens/s": statistics.median(rates), "best": max(rates), "cpu_s": cpu, "peak_MiB": peak}


def theirs(python: str, folder: Path, model: str, shape: Shape, task: str) -> dict[str, float]:
    """TRL's SFTTrainer with PEFT; it supervises every token."""
    command = [python, str(folder / "train_trl.py"), "--model", model, "--steps", str(shape.steps)]
    command += ["--seq", str(shape.length), "--batch", str(shape.rows), "--rank", str(RANK)]
    command += ["--dist", "lognormal", "--packing"] if task == "lognormal" else []
    said, cpu, peak = timed(command, folder)
    found = json.loads(said.strip().splitlines()[-1])
    share = found["useful_frac"] * found["tokens_per_step"]
    rates = [share / seconds for seconds in found["raw_step_s"]]
    return {"tokens/s": found["tok_s_useful"], "best": max(rates), "cpu_s": cpu, "peak_MiB": peak}


def product_rate(size: int = 2048) -> float:
    """FLOP/s of a product of bfloat16 that adds up in float32, the best of five."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size)).astype(jnp.bfloat16) for i in range(2))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    jax.block_until_ready(product(a, b))
    seconds: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(a, b))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def best_of(run: Callable[[], Any], times: int = 3) -> tuple[float, float]:
    """(wall, CPU) seconds of the fastest, after one that warms up."""
    jax.block_until_ready(run())
    found: list[tuple[float, float]] = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(wall for wall, _ in found), min(cpu for _, cpu in found)


def head(spec: DecoderSpec, shape: Shape) -> None:
    """Print the head, forwards and backwards, in bare products of its supervised positions with the table."""
    keys = jax.random.split(jax.random.key(0), 4)
    places = (shape.rows, shape.length)
    x = jax.random.normal(keys[0], (*places, spec.width), jnp.bfloat16)
    table = 0.02 * jax.random.normal(keys[1], (spec.vocab, spec.width), jnp.bfloat16)
    targets = jax.random.randint(keys[2], places, 0, spec.vocab)
    platform = jax.default_backend()
    form = Form(None, chunk_of(None, platform, spec.vocab), spec.logit_cap)
    rows = x.reshape(-1, form.chunk, spec.width)

    def products(rows: jax.Array, table: jax.Array) -> jax.Array:
        def one(total: jax.Array, some: jax.Array) -> tuple[jax.Array, None]:
            return total + jnp.einsum("id,vd->iv", some, table, preferred_element_type=jnp.float32)[0, 0], None

        return jax.lax.scan(one, jnp.float32(0.0), rows)[0]

    bare = best_of(partial(jax.jit(products), rows, table))
    both = jax.jit(jax.value_and_grad(lambda x, *rest: cross_entropy(form, x, Table(rest[0]), *rest[1:])))
    for share in (1.0, SUPERVISED):
        supervised = jax.random.uniform(keys[3], places) < share
        wall, cpu = best_of(partial(both, x, table, targets, supervised))
        due = float(jnp.mean(supervised))
        print(
            f"head, {share:.0%} supervised: {wall / bare[0] / due:.2f} products ({cpu / bare[1] / due:.2f} in CPU time)"
        )


def floor_flop(spec: DecoderSpec, shape: Shape, supervised: float) -> float:
    """Of a step with a frozen base: layers forwards twice and backwards once, the head each once where supervised,
    and half of causal attention's scores and sums (two products forwards twice, four backwards)."""
    tokens = shape.rows * shape.length
    table = [leaf for leaf in rows(spec, stacked=True) if leaf.use.product]
    layers = 3 * 2 * tokens * sum(float(np.prod(leaf.shape)) for leaf in table)
    attention = sum(8 * 2 * tokens * shape.length / 2 * each.heads * each.head_dim for each in spec.layers)
    return layers + attention + 2 * 2 * tokens * supervised * spec.vocab * spec.width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="Folder with weights (peers need its tokenizer, too)")
    parser.add_argument("--against", type=Path, help="Another checkout of this project")
    parser.add_argument("--peers", type=Path, help="Folder of train_trl.py")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    shape, model = Shape(options.rows, options.length, options.steps), str(Path(options.model).resolve())
    spec, rate = read_spec(model), product_rate()
    print(f"{rate / 1e9:.0f} GFLOP/s; load before {os.getloadavg()[0]:.1f}", flush=True)
    head(spec, shape)
    for task in options.tasks:
        compare(task, shape, model, spec, options)


def compare(task: str, shape: Shape, model: str, spec: DecoderSpec, options: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        real = write_rows(shape, task, Path(folder))
        for _ in range(options.rounds):
            found.setdefault("tapeout", []).append(ours(HERE, model, shape, Path(folder)))
            if options.against:
                found.setdefault("against", []).append(ours(options.against, model, shape, Path(folder)))
            if options.peers and task != "supervised":
                peer = theirs(options.peer_python, options.peers, model, shape, task)
                found.setdefault("TRL + PEFT", []).append(peer)
    rate = product_rate()
    share = SUPERVISED if task == "supervised" else 1.0
    floor = floor_flop(spec, shape, share * real) / rate
    tokens = shape.rows * shape.length * real
    print(f"{task}: {tokens:.0f} real tokens a step; floor {floor:.2f} s at {rate / 1e9:.0f} GFLOP/s")
    best = {name: max(run["best"] for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        median = statistics.median(run["tokens/s"] for run in runs)
        seconds, peak = tokens / best[name], max(run["peak_MiB"] for run in runs)
        cpu = min(run["cpu_s"] for run in runs)
        print(
            f"  {name}: {best[name]:.1f} tokens/s at best ({seconds:.2f} s a step, floor {floor / seconds:.0%}), "
            f"{median:.1f} in the median; {peak:.0f} MiB, {cpu:.0f} CPU s in all; "
            f"ours {best['tapeout'] / best[name]:.2f} x",
            flush=True,
        )


if __name__ == "__main__":
    main()
