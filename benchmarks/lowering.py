"""Time to trace and lower the LoRA train step of Gemma 4 31B with abstract weights, and the program's size by depth.

Nothing is allocated or compiled: `python benchmarks/lowering.py [--layers 12 60] [--length 1024]`.
"""

import argparse
import dataclasses
import time
from typing import Any

from models.config import HardwareConfig
from models.families import gemma4
from models.mesh import make_mesh
from models.spec import DecoderSpec
from train.abstract import abstract_step
from train.config import TrainConfig

SLIDING, GLOBAL = "sliding_attention", "full_attention"
GEMMA4_31B: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 5376,
    "intermediate_size": 21_504,
    "num_hidden_layers": 60,
    "layer_types": [*[SLIDING] * 5, GLOBAL] * 10,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "num_global_key_value_heads": 4,
    "head_dim": 256,
    "global_head_dim": 512,
    "attention_k_eq_v": True,
    "sliding_window": 1024,
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        GLOBAL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
    },
}


def gemma4_31b(layers: int) -> DecoderSpec:
    spec = gemma4.spec(GEMMA4_31B, "model.")
    return dataclasses.replace(spec, layers=spec.layers[:layers])


def lowered(spec: DecoderSpec, length: int) -> str:
    """The program's text."""
    return abstract_step(spec, TrainConfig(), make_mesh(HardwareConfig()), (1, length)).lower().as_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[12, 60])
    parser.add_argument("--length", type=int, default=1024)
    args = parser.parse_args()
    for layers in args.layers:
        start, cpu = time.monotonic(), time.process_time()
        text = lowered(gemma4_31b(layers), args.length)
        seconds, used = time.monotonic() - start, time.process_time() - cpu
        print(f"{layers} layers: {seconds:.2f} s ({used:.2f} s of CPU), {text.count(chr(10))} lines of program")


if __name__ == "__main__":
    main()
