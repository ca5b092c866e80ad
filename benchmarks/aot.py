"""What the product's own programs need on TPU slices, by the real TPU compiler, without a TPU.

`pip install "tapeout[aot]"`, then `python -m benchmarks.aot [NAME ...] [--layers N] [--out FILE]`: each program is
compiled in a process of its own, for the compiler can abort it (minutes each; GB of memory). Prints a row of the table
for each; `--layers` shrinks the depth. `--list` names them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from benchmarks.shapes import published
from common.machine.chips import slice_of
from common.machine.estimate import Estimate, estimate
from models.folder.abstract import abstract_decoder
from models.mesh import laid_out, slice_devices
from models.quant.layout import Mode
from serve.engine.definitions import Definitions
from train.abstract import abstract_step, head_chunks
from train.config import LoraConfig, TrainConfig

REPO = Path(__file__).resolve().parents[1]
STEPS = 8
"""Tokens of a row that one dispatch of `decode` draws."""


@dataclass(frozen=True)
class Case:
    """A program of the product for a model and a slice."""

    model: str
    slice: str
    kind: str
    """train, decode, prefill (of one prompt), or place (into the cache)."""
    rows: int = 1
    """Of a batch, or slots."""
    length: int = 4096
    bucket: int = 0
    """The prompt's length."""
    mesh: tuple[int, int] = (1, 1)
    """Of training: fsdp, tp. Serving spreads over all chips."""
    remat: Any = "full"
    weights: Mode | None = None

    @property
    def tokens(self) -> int:
        """That one run of the program computes."""
        return self.bucket or self.rows * (STEPS if self.kind == "decode" else self.length)

    def lower(self, layers: int | None) -> jax.stages.Lowered:
        spec = published(self.model, layers)
        if self.kind == "train":
            config = TrainConfig(remat=self.remat, lora=LoraConfig(rank=64, alpha=64), weights=self.weights)
            return abstract_step(spec, config, self.devices, (self.rows, self.length)).lower()
        decoder = abstract_decoder(spec, "bfloat16", False, self.devices, self.weights)
        definitions = Definitions(decoder, self.rows, self.length, STEPS, frozenset({1}))
        if self.kind == "decode":
            return definitions.lower_decode()
        lower = definitions.lower_prefill if self.kind == "prefill" else definitions.lower_place
        return lower(self.bucket)

    @property
    def devices(self) -> Mesh:
        slice_ = slice_of(self.slice)
        shape = [1, *self.mesh] if self.kind == "train" else [1, 1, slice_.chips]
        return laid_out(shape, slice_devices(slice_))

    @property
    def open_turns(self) -> int:
        if self.kind != "train":
            return 1
        return head_chunks(self.devices, published(self.model).vocab, (self.rows, self.length))

    def measure(self, layers: int | None = None) -> tuple[Estimate, float]:
        """The compiler's answer, and the seconds it took; in this process, which it may abort."""
        lowered = self.lower(layers)
        start = time.monotonic()
        compiled = lowered.compile()
        seconds = time.monotonic() - start
        return estimate(compiled, slice_of(self.slice).chip, self.open_turns), seconds


def _cases() -> dict[str, Case]:
    gemma, v5p, v6e = "gemma4-31b", "v5p-8", "v6e-8"
    cases = {
        "decode 31B 8k": Case(gemma, v6e, "decode", 32, 8192),
        "decode 31B 16k": Case(gemma, v6e, "decode", 32, 16_384),
        "decode 31B 16k int8": Case(gemma, v6e, "decode", 32, 16_384, weights="int8"),
        "decode qwen3 32B": Case("qwen3-32b", "v6e-4", "decode", 64, 2048),
        "decode llama 8B": Case("llama3.1-8b", "v6e-1", "decode", 32, 2048),
    }
    cases |= {f"prefill 31B {t}": Case(gemma, v6e, "prefill", 32, 16_384, t) for t in (128, 2048, 16_384)}
    cases["place 31B 16384"] = Case(gemma, v6e, "place", 32, 16_384, 16_384)
    cases |= {f"train 31B {n} x 4096": Case(gemma, v5p, "train", n, mesh=(4, 1)) for n in (4, 8)}
    cases |= {
        f"train 31B 4 x 4096 {remat}": Case(gemma, v5p, "train", 4, mesh=(4, 1), remat=remat)
        for remat in ("outputs", "products")
    }
    return cases | {
        "train 31B 4 x 8192": Case(gemma, v5p, "train", 4, 8192, mesh=(4, 1)),
        "train 31B tp 4": Case(gemma, v5p, "train", 4, mesh=(1, 4)),
        "train 27B 8 x 4096": Case("gemma3-27b", v5p, "train", 8, mesh=(4, 1)),
        "train qwen3 32B 8 x 4096": Case("qwen3-32b", v5p, "train", 8, mesh=(4, 1)),
        "train llama 8B v5e-8": Case("llama3.1-8b", "v5e-8", "train", 8, mesh=(8, 1)),
        "train llama 8B v6e-8": Case("llama3.1-8b", "v6e-8", "train", 8, mesh=(8, 1)),
    }


CASES = _cases()
HEAD = """| program | slice | GiB/chip | compile s | cycles + collectives | each step | tokens/s | gathered GB |
|---|---|---|---|---|---|---|---|"""


def environment(slice_: str) -> dict[str, str]:
    """Of a process that compiles for TPUs and has none."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]),
        **slice_of(slice_).environment,
    }


def in_child(name: str, layers: int | None = None, seconds: float = 3600) -> dict[str, Any]:
    """The figures of one program, or `error`, from a process of its own."""
    child = [
        sys.executable,
        "-m",
        "benchmarks.aot",
        "--child",
        name,
        *([] if layers is None else ["--layers", str(layers)]),
    ]
    env = environment(CASES[name].slice)
    done = subprocess.run(child, cwd=REPO, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        return {
            "error": done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else f"exit {done.returncode}"
        }
    return json.loads(done.stdout.splitlines()[-1])


def figures(name: str, layers: int | None) -> dict[str, Any]:
    case = CASES[name]
    found, seconds = case.measure(layers)
    each = found.seconds / (STEPS if case.kind == "decode" else 1)
    return {
        "gib": found.gib,
        "compile": seconds,
        "compute": found.compute,
        "links": found.links,
        "prefetched": found.prefetched,
        "step": each,
        "rate": case.tokens / found.seconds,
        "gathered": found.gathered,
    }


def row(name: str, found: dict[str, Any]) -> str:
    if "error" in found:
        return f"| {name} | {CASES[name].slice} | does not compile: {found['error']} | | | | | |"
    unit, scale = ("ms", 1000) if found["step"] < 0.1 else ("s", 1)
    compute, links, step = (f"{found[key] * scale:.2f}" for key in ("compute", "links", "step"))
    cells = [
        name,
        CASES[name].slice,
        f"{found['gib']:.1f}",
        f"{found['compile']:.0f}",
        f"{compute} + {links} {unit}",
        f"{step} {unit}",
        f"{found['rate']:,.0f}",
        f"{found['gathered'] / 1e9:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--out", type=Path, help="JSON lines to add to")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print("\n".join(CASES))
    elif args.child:
        print(json.dumps(figures(args.names[0], args.layers)))
    else:
        print(HEAD, flush=True)
        for name in args.names or CASES:
            found = in_child(name, args.layers)
            if args.out is not None:
                with args.out.open("a") as file:
                    print(json.dumps({"name": name, "layers": args.layers, **found}), file=file)
            print(row(name, found), flush=True)


if __name__ == "__main__":
    main()
