"""Time to trace and lower the LoRA train step of Gemma 4 31B with abstract weights, and the program's size by depth.

Nothing is allocated or compiled: `python benchmarks/lowering.py [--layers 12 60] [--length 1024]`.
"""

import argparse
import time

from benchmarks.shapes import published
from models.config import HardwareConfig
from models.mesh import make_mesh
from models.spec import DecoderSpec
from train.abstract import abstract_step
from train.config import TrainConfig


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
        text = lowered(published("gemma4-31b", layers), args.length)
        seconds, used = time.monotonic() - start, time.process_time() - cpu
        print(f"{layers} layers: {seconds:.2f} s ({used:.2f} s of CPU), {text.count(chr(10))} lines of program")


if __name__ == "__main__":
    main()
