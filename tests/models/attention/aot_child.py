"""Compile a LoRA step of one period of Gemma 4 31B (head dims 256 and 512) for four v5p chips, without a chip."""

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.lowering import abstract_step, gemma4_31b
from models.attention.dispatch import Attention
from models.mesh import AXES, batch_sharding

LENGTH, CHIPS = 2048, 4


def main() -> None:
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1")
    spec = gemma4_31b(6)
    for shape, remat in (((1, CHIPS, 1), "offload"), ((1, 1, CHIPS), "full")):
        mesh = Mesh(np.asarray(topology.devices).reshape(shape), AXES)
        attention = Attention("auto", mesh)
        print(attention.describe(spec, LENGTH, "bfloat16"), flush=True)
        step, (trained, opt_state, frozen, batch) = abstract_step(spec, LENGTH, CHIPS, attention, remat)
        whole = NamedSharding(mesh, PartitionSpec())
        program = jax.jit(step, in_shardings=(whole, whole, whole, batch_sharding(mesh)))
        program.lower(trained, opt_state, frozen, batch).compile()


if __name__ == "__main__":
    main()
