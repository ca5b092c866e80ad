"""The training step built from shapes: what runs, for a planner, a compiler or a test, without any weights."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.adapters.lora import add_lora
from models.decoder import Decoder
from models.families import rows
from models.leaf import Leaf, lora_axes
from models.mesh import batch_sharding, sharding_of, weight_sharding
from models.quant.layout import mode_of, shapes
from models.quant.weight import Quantized
from models.spec import DecoderSpec
from train.config import TrainConfig
from train.names import name_of
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
    decoder = nnx.eval_shape(lambda: _decoder(spec, config, mesh, dtype))
    graph, trained, frozen = nnx.split(decoder, decoder.trained, ...)
    trained = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.float32), trained)
    trainer = make_trainer(config, spec, graph, dtype, config.steps or steps)
    table = {leaf.path: leaf for leaf in rows(spec, stacked=True)}
    trained, frozen = (_placed(state, table, mesh) for state in (trained, frozen))
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


def _decoder(spec: DecoderSpec, config: TrainConfig, mesh: Mesh, dtype: str) -> Decoder:
    """To be traced: `setup.make_decoder` with zeros for weights."""
    full = config.method == "full"
    held = "float32" if full else dtype

    def weight(leaf: Leaf) -> jax.Array | Quantized:
        mode = None if config.weights is None else mode_of(leaf, config.weights)
        if mode is None:
            return jnp.zeros(leaf.shape, held)
        codes, scale = shapes(leaf, mode)
        return Quantized(
            jnp.zeros(codes, "int8" if mode == "int8" else "uint8"), jnp.zeros(scale, "float32"), mode, held
        )

    values = {leaf.path: weight(leaf) for leaf in rows(spec, stacked=True)}
    trained = nnx.Param if full else nnx.LoRAParam
    decoder = Decoder(spec, values, True, trained, mesh, config.attention)
    lora = config.lora
    return decoder if full else add_lora(decoder, None, lora.rank, lora.alpha, lora.targets, config.seed)


def _placed(state: nnx.State, table: dict[str, Leaf], mesh: Mesh) -> nnx.State:
    """Shapes with the sharding that loading, or LoRA, gives the arrays."""

    def place(name: str, a: Any) -> Any:
        if name in table:
            leaf = table[name]
            if not isinstance(a, Quantized):
                return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=weight_sharding(mesh, leaf))
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=weight_sharding(mesh, leaf, x.shape)), a
            )
        path, half = name.rsplit(".", 1)
        letters = lora_axes(table[path])[half == "lora_b"]
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding_of(mesh, letters, a.shape))

    flat = [
        (path, variable.replace(place(name_of(path), variable.get_value()))) for path, variable in state.flat_state()
    ]
    return nnx.State.from_flat_path(flat)
