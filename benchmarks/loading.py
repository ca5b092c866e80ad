"""Loading against `cat`: a generated checkpoint of 4 shards, each figure in a child process of its own.

    python benchmarks/loading.py [--gigabytes 2] [--runs 5]

Prints the seconds of `cat`, of reading the same bytes into fresh memory with two threads (what a load that did nothing
else would take: `cat` keeps nothing, and a page's first touch costs), and of a load: from the disk, and again from the
page cache; in turns, median of the runs; and the host memory that a load takes at its peak above the loaded model
(resident set, /proc/self/status). Before each, as much memory is touched and freed: a virtual machine gives pages that
lie free back to its host, and what it takes to get them again (up to 3 s a GB) is the host's, not the load's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.safetensors import INDEX

REPO = Path(__file__).resolve().parent.parent
SHARDS = 4
WIDTH, MLP, VOCAB, HEAD_DIM = 2048, 8192, 32768, 128
CONFIG = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": MLP,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": HEAD_DIM,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
CHILD = """
import json, sys, time
from pathlib import Path
import jax
import jax.numpy as jnp
from models.folder.load import load_params

def kilobytes(key):
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key))

jnp.zeros(1).block_until_ready()
before = kilobytes("VmRSS")
start = time.perf_counter()
spec, params = load_params(sys.argv[1], "bfloat16", sys.argv[2] == "stacked")
jax.block_until_ready(params)
seconds = time.perf_counter() - start
model = sum(value.nbytes for value in params.values())
peak = kilobytes("VmHWM") * 1024
print(json.dumps({"seconds": seconds, "model": model, "above": peak - before * 1024 - model}))
"""


FLOOR = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np

def read(path):
    buffer = np.empty(path.stat().st_size, np.uint8)
    with open(path, "rb", buffering=0) as f:
        done = 0
        while count := f.readinto(buffer.data[done : done + (1 << 19)]):
            done += count
    return buffer

start = time.perf_counter()
with ThreadPoolExecutor(2) as pool:
    kept = list(pool.map(read, Path(sys.argv[1]).glob("*.safetensors")))
print(time.perf_counter() - start)
"""


def layer(i: int) -> list[tuple[str, tuple[int, ...]]]:
    at = f"model.layers.{i}."
    return [
        (f"{at}self_attn.q_proj.weight", (16 * HEAD_DIM, WIDTH)),
        (f"{at}self_attn.k_proj.weight", (8 * HEAD_DIM, WIDTH)),
        (f"{at}self_attn.v_proj.weight", (8 * HEAD_DIM, WIDTH)),
        (f"{at}self_attn.o_proj.weight", (WIDTH, 16 * HEAD_DIM)),
        (f"{at}mlp.gate_proj.weight", (MLP, WIDTH)),
        (f"{at}mlp.up_proj.weight", (MLP, WIDTH)),
        (f"{at}mlp.down_proj.weight", (WIDTH, MLP)),
        (f"{at}input_layernorm.weight", (WIDTH,)),
        (f"{at}post_attention_layernorm.weight", (WIDTH,)),
    ]


def head(tensors: list[tuple[str, tuple[int, ...]]]) -> bytes:
    table, end = {}, 0
    for name, shape in tensors:
        begin, end = end, end + 2 * int(np.prod(shape))
        table[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text


def generate(folder: Path, size: float) -> int:
    """Random bf16 in SHARDS files; returns the bytes of the largest tensor."""
    per_layer = 2 * sum(int(np.prod(shape)) for _, shape in layer(0))
    layers = max(1, round((size - 2 * VOCAB * WIDTH) / per_layer))
    tensors = [("model.embed_tokens.weight", (VOCAB, WIDTH)), ("model.norm.weight", (WIDTH,))]
    tensors += [each for i in range(layers) for each in layer(i)]
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    noise = (np.random.default_rng(0).integers(0, 1 << 8, 1 << 20) + 0x3F00).astype(np.uint16).tobytes()
    plan = {}
    for number in range(SHARDS):
        name = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        mine = tensors[number * len(tensors) // SHARDS : (number + 1) * len(tensors) // SHARDS]
        plan |= {tensor: name for tensor, _ in mine}
        with open(folder / name, "wb") as f:
            f.write(head(mine))
            for _, shape in mine:
                left = 2 * int(np.prod(shape))
                while left:
                    left -= f.write(noise[: min(left, len(noise))])
    (folder / INDEX).write_text(json.dumps({"weight_map": plan}))
    return max(2 * int(np.prod(shape)) for _, shape in tensors)


def cat(folder: Path) -> float:
    start = time.perf_counter()
    files = sorted(map(str, folder.glob("*.safetensors")))
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def load(folder: Path, form: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder), form], cwd=REPO, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def touch(size: float) -> None:
    """Have the machine hold `size` bytes of free memory."""
    subprocess.run([sys.executable, "-c", f"bytearray(b'x') * {int(size)}"], check=True)


def forget(folder: Path) -> None:
    """Have the page cache drop the shards."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def floor(folder: Path) -> float:
    return float(subprocess.check_output([sys.executable, "-c", FLOOR, str(folder)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        largest = generate(folder, args.gigabytes * 1e9)
        ways: dict[str, Callable[[Path], dict[str, float]]] = {
            "cat": lambda path: {"seconds": cat(path)},
            "into fresh memory": lambda path: {"seconds": floor(path)},
            "stacked": lambda path: load(path, "stacked"),
            "layer by layer": lambda path: load(path, "layer by layer"),
        }
        print(f"largest tensor {largest / 1e6:.0f} MB")
        for source in ("disk", "page cache"):
            runs: dict[str, list[dict[str, float]]] = {each: [] for each in ways}
            for _ in range(args.runs):
                for each, way in ways.items():
                    forget(folder) if source == "disk" else cat(folder)
                    touch(1.5 * args.gigabytes * 1e9)
                    runs[each].append(way(folder))
            took = {each: statistics.median(run["seconds"] for run in runs[each]) for each in ways}
            for each, seconds in took.items():
                print(f"from the {source}, {each}: {seconds:.2f} s = {seconds / took['cat']:.2f} x cat", end="")
                print(f", {seconds / took['into fresh memory']:.2f} x into fresh memory")
            above = [run["above"] for of_way in runs.values() for run in of_way if "above" in run]
            print(f"peak host memory above the model: {max(above) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
