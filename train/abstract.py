"""The training step built from shapes: what runs, for a planner, a compiler or a test, without any weights."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.adapters.lora import add_lora_shapes
from models.folder.abstract import abstract_decoder
from models.mesh import batch_sharding
from models.spec import DecoderSpec
from train.config import TrainConfig
from train.head import chunk_of
from train.step import Trainer, compile_step, make_trainer


@dataclass(frozen=True)
class AbstractStep:
    """The step of a run and its arguments as shapes, each with its place on the mesh."""

    trainer: Trainer
    trained: nnx.State
    opt_state: Any
    frozen: nnx.State
    batch: dict[str, jax.ShapeDtypeStruct]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.trained, self.opt_state, self.frozen, self.batch

    def lower(self) -> jax.stages.Lowered:
        """The program that `train` runs; `.compile()` it for the mesh's devices, which need not be here."""
        return compile_step(self.trainer, self.trained, self.opt_state).lower(*self.arguments)


def abstract_step(
    spec: DecoderSpec,
    config: TrainConfig,
    mesh: Mesh,
    batch: tuple[int, int],
    dtype: str = "bfloat16",
    steps: int = 100,
) -> AbstractStep:
    """The step over batches [b t] of shape `batch`, of a run of `config.steps`, or else `steps`.

    The adapter has the shapes of `config.lora`, also where training would go on from `config.adapter`.
    """
    full = config.method == "full"
    held, kind = ("float32", nnx.Param) if full else (dtype, nnx.LoRAParam)
    decoder = abstract_decoder(spec, held, True, mesh, config.weights, config.attention, kind)
    if not full:
        add_lora_shapes(decoder, mesh, config.lora.rank, config.lora.alpha, config.lora.targets)
    graph, trained, frozen = nnx.split(decoder, decoder.trained, ...)
    trainer = make_trainer(config, spec, graph, dtype, config.steps or steps)
    everywhere = NamedSharding(mesh, PartitionSpec())
    opt_state = optax.tree_utils.tree_map_params(
        trainer.optimizer,
        lambda moment, weight: jax.ShapeDtypeStruct(moment.shape, moment.dtype, sharding=weight.sharding),
        jax.eval_shape(trainer.optimizer.init, trained),
        trained,
        transform_non_params=lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere),
    )
    ids, mask = (jax.ShapeDtypeStruct(batch, kind, sharding=batch_sharding(mesh)) for kind in (jnp.int32, jnp.bool_))
    return AbstractStep(
        trainer, trained, opt_state, frozen, {"tokens": ids, "segments": ids, "positions": ids, "mask": mask}
    )


def head_chunks(mesh: Mesh, vocab: int, batch: tuple[int, int]) -> int:
    """How often the loss head's loop turns on TPU over batches [b t] of this shape, where every token is supervised:
    the one loop of the step whose end is not known before."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-batch[0] * batch[1] // (ways * chunk_of(mesh, "tpu", vocab)))
