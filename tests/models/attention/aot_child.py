"""Compile a LoRA step of one period of Gemma 4 31B (head dims 256 and 512) for four v5p chips, without a chip."""

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks.shapes import published
from models.attention.dispatch import Attention
from models.layer import Remat
from models.mesh import AXES
from train.abstract import abstract_step
from train.config import TrainConfig

LENGTH, CHIPS = 2048, 4


def main() -> None:
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1")
    spec = published("gemma4-31b", 6)
    cases: tuple[tuple[tuple[int, int, int], Remat], ...] = (((1, CHIPS, 1), "outputs"), ((1, 1, CHIPS), "full"))
    for shape, remat in cases:
        mesh = Mesh(np.asarray(topology.devices).reshape(shape), AXES)
        attention = Attention("auto", mesh)
        print(attention.describe(spec, LENGTH, "bfloat16"), flush=True)
        abstract_step(spec, TrainConfig(remat=remat), mesh, (CHIPS, LENGTH)).lower().compile()


if __name__ == "__main__":
    main()
