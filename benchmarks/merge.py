"""Merging a rank-64 adapter: `python -m convert` beside cp + fsync of the same files and beside PEFT, in one run.

python benchmarks/merge.py [--size small|large] [--reps N] [--no-peft] [--dir DIR]

Weights and adapter are random, generated once below DIR. Every figure is of a whole process, page cache warm; only
"of it, streaming" is the stage's own figure for the reading, merging, hashing and writing of the files. All three find
memory in the same state: a virtual machine may hand freed pages back to its host within seconds, and a page cache that
has to ask for them again takes up to three times as long, so each waits as long after the last files were removed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

from common.digests.model import base_digest
from convert.write.headers import make_head
from models.families import read_spec, rows
from models.leaf import lora_shapes

ROOT = Path(__file__).resolve().parents[1]
RANK, ALPHA = 64, 128.0
TARGETS = ["q", "kv", "o", "gate_up", "down"]
COMMON = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936, "head_dim": 128}
MORE = {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 40960, "tie_word_embeddings": True}
SHAPES = {
    "small": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "large": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
}
"""Qwen3 0.6B (1.2 GB in bf16, one file) and 4B (8 GB, in shards)."""
SHARD_BYTES = 2_000_000_000
MIB = 1 << 20
SETTLED = 5.0
"""Seconds between the removal of earlier files and a timing."""


def make_base(folder: Path, size: str) -> None:
    """Random bf16 weights for every tensor of the table, one at a time."""
    folder.mkdir(parents=True)
    config = {**COMMON, **MORE, **SHAPES[size], "num_key_value_heads": 8, "dtype": "bfloat16", "hidden_act": "silu"}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: leaf.hf_shape for leaf in rows(read_spec(str(folder)), stacked=False) for name in leaf.hf_names}
    shards: list[list[str]] = [[]]
    held = 0
    for name, shape in tensors.items():
        if held + 2 * int(np.prod(shape)) > SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += 2 * int(np.prod(shape))
    count = len(shards)
    names = ["model.safetensors"] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(count)]
    random = np.random.default_rng(0)
    for file, inside in zip(names, shards, strict=True):
        with open(folder / file, "wb") as f:
            f.write(make_head((name, "BF16", tensors[name], 2 * int(np.prod(tensors[name]))) for name in inside))
            for name in inside:
                drawn = random.standard_normal(tensors[name], np.float32)
                f.write((0.02 * drawn).astype(ml_dtypes.bfloat16).tobytes())
    if count > 1:
        plan = {name: file for file, inside in zip(names, shards, strict=True) for name in inside}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": plan}))


def make_adapter(folder: Path, base: Path) -> None:
    """Random A and B in the train stage's layout."""
    random = np.random.default_rng(1)
    arrays = {
        f"{leaf.path}.lora_{half}": jnp.asarray(0.01 * random.standard_normal(shape, np.float32))
        for leaf in rows(read_spec(str(base)), stacked=True)
        if leaf.use.product and leaf.use.adaptable and leaf.target in TARGETS
        for half, shape in zip("ab", lora_shapes(leaf, RANK), strict=True)
    }
    with ocp.CheckpointManager(folder.absolute() / "checkpoints") as manager:
        manager.save(1, args=ocp.args.Composite(trained=ocp.args.StandardSave(arrays)))
        manager.wait_until_finished()
    about = {"method": "lora", "rank": RANK, "alpha": ALPHA, "targets": TARGETS, "base_digest": base_digest(base)}
    (folder / "adapter.json").write_text(json.dumps(about))


def process(*command: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MiB of a whole process."""
    start = time.monotonic()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    said = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MIB


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    time.sleep(SETTLED)


def convert(base: Path, adapter: Path, out: Path, peft: bool) -> tuple[float, float, float, float]:
    """Seconds, CPU seconds, seconds of streaming, and peak MiB."""
    _remove(out)
    out.mkdir(parents=True)
    job = out.with_name(out.name + ".json")
    inputs = {"base": str(base), "adapter": str(adapter)}
    job.write_text(json.dumps({"config": {"peft": peft}, "inputs": inputs, "out": str(out)}))
    seconds, cpu, peak = process(sys.executable, "-m", "convert", str(job))
    return seconds, cpu, json.loads((out / "metrics.json").read_text())["write_seconds"], peak


def copy(base: Path, out: Path) -> float:
    _remove(out)
    start = time.monotonic()
    subprocess.run(["cp", "-r", str(base), str(out)], check=True)
    for file in out.iterdir():
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), default="small")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--no-peft", action="store_true", help="Leave the peer out")
    parser.add_argument("--dir", type=Path, default=Path("runs/bench-merge"))
    parser.add_argument("--make", action="store_true", help="Only generate the files")
    given = parser.parse_args()
    given.dir = given.dir.absolute()
    place = given.dir / given.size
    base, adapter, out = place / "base", place / "adapter", place / "out"
    if given.make:
        make_base(base, given.size)
        make_adapter(adapter, base)
        return
    if not (adapter / "adapter.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        # In a process of its own: a child's peak memory, as the kernel counts it, starts from its parent's.
        process(sys.executable, str(Path(__file__).resolve()), "--size", given.size, "--dir", str(given.dir), "--make")
    convert(base, adapter, place / "exported", peft=True)  # also warms the page cache
    times: dict[str, list[float]] = {name: [] for name in ("cp", "ours", "streaming", "peft")}
    peaks: dict[str, list[float]] = {"ours": [], "peft": []}
    cpus: dict[str, list[float]] = {"cp": [], "ours": [], "peft": []}
    for _ in range(given.reps):
        before = os.times()
        times["cp"].append(copy(base, place / "copy"))
        cpus["cp"].append(sum(os.times()[:4]) - sum(before[:4]))
        seconds, cpu, streaming, peak = convert(base, adapter, out, peft=False)
        times["ours"].append(seconds)
        cpus["ours"].append(cpu)
        times["streaming"].append(streaming)
        peaks["ours"].append(peak)
        if not given.no_peft:
            _remove(place / "peft")
            command = (str(ROOT / "benchmarks/peers/peft_merge.py"), str(base), str(place / "exported/adapter"))
            seconds, cpu, peak = process(sys.executable, *command, str(place / "peft"))
            times["peft"].append(seconds)
            cpus["peft"].append(cpu)
            peaks["peft"].append(peak)
    for folder in ("copy", "out", "peft"):
        shutil.rmtree(place / folder, ignore_errors=True)
    table(base, times, cpus, peaks)


Figures = dict[str, list[float]]


def table(base: Path, times: Figures, cpus: Figures, peaks: Figures) -> None:
    total = sum(file.stat().st_size for file in base.iterdir())
    middle = {name: statistics.median(values) for name, values in times.items() if values}
    print(f"{base.parent.name}: {total / 1e9:.2f} GB, rank {RANK}; load average {os.getloadavg()[0]:.1f}")
    print("| work | seconds (median, all) | CPU seconds | peak MiB |\n|---|---|---|---|")
    names = {
        "cp": "cp + fsync",
        "ours": "tapeout convert, whole process",
        "streaming": "of it, streaming",
        "peft": "PEFT, whole process",
    }
    for name in middle:
        each = ", ".join(f"{value:.2f}" for value in times[name])
        peak = f"{max(peaks[name]):,.0f}" if peaks.get(name) else ""
        cpu = f"{statistics.median(cpus[name]):.2f}" if cpus.get(name) else ""
        print(f"| {names[name]} | {middle[name]:.2f} ({each}) | {cpu} | {peak} |")
    print(f"streaming / cp: {middle['streaming'] / middle['cp']:.2f}")
    if "peft" in middle:
        ratio, less = middle["peft"] / middle["ours"], max(peaks["peft"]) / max(peaks["ours"])
        print(f"PEFT / tapeout: {ratio:.2f} x the time, {less:.2f} x the memory")


if __name__ == "__main__":
    main()
