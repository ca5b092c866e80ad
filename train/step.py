"""One optimizer step over a packed batch: loss on supervised tokens, gradients of the trained parameters only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.decoder import Decoder
from models.layer import Remat
from models.spec import DecoderSpec
from train.config import TrainConfig
from train.loss import Batch, loss_of, next_tokens
from train.optimizer import make_optimizer


class Trainer(NamedTuple):
    """Programs over (trained, optimizer state, frozen, batch); `trained` is float32 whatever the compute type."""

    step: Callable[[nnx.State, Any, nnx.State, Batch], tuple[nnx.State, Any, dict[str, jax.Array]]]
    evaluate: Callable[[nnx.State, nnx.State, Batch], tuple[jax.Array, jax.Array]]
    """The sum of the loss over the supervised tokens, and their number."""
    optimizer: optax.GradientTransformation


def make_trainer(
    config: TrainConfig, spec: DecoderSpec, graph: nnx.GraphDef[Decoder], dtype: str, steps: int
) -> Trainer:
    """Compile-ready programs for a decoder of `spec` whose graph is `graph`."""
    optimizer = make_optimizer(config, spec, steps)

    def loss(trained: nnx.State, frozen: nnx.State, batch: Batch, remat: Remat) -> tuple[jax.Array, jax.Array]:
        """(sum, count): parts of a batch, or of a data set, are added up before anything is divided."""
        decoder = nnx.merge(graph, jax.tree.map(lambda a: a.astype(dtype), trained), frozen)
        x = decoder.hidden(batch["tokens"], batch["positions"], batch["segments"], remat, config.scan_layers)
        return loss_of(decoder, x, batch)

    def gradients(trained: nnx.State, frozen: nnx.State, batch: Batch, share: jax.Array) -> tuple[jax.Array, nnx.State]:
        """The loss's sum over `batch`, and the gradient of `share` times it."""
        total, pullback = jax.vjp(lambda t: loss(t, frozen, batch, config.remat)[0], trained)
        return total, pullback(share)[0]

    def step(
        trained: nnx.State, opt_state: Any, frozen: nnx.State, batch: Batch
    ) -> tuple[nnx.State, Any, dict[str, jax.Array]]:
        count = jnp.sum(next_tokens(batch)[1], dtype=jnp.float32)
        # The mean's gradient: the backward pass of the sum begins with 1 / count, and not with 1 to be divided after.
        share = 1 / jnp.maximum(count, 1)
        if config.accumulate == 1:
            total, grads = gradients(trained, frozen, batch, share)
        else:

            def add(sums: tuple[jax.Array, nnx.State], part: Batch) -> tuple[tuple[jax.Array, nnx.State], None]:
                return jax.tree.map(jnp.add, sums, gradients(trained, frozen, part, share)), None

            zeros = jnp.float32(0.0), jax.tree.map(jnp.zeros_like, trained)
            (total, grads), _ = jax.lax.scan(add, zeros, micro_batches(batch, config.accumulate))
        updates, opt_state = optimizer.update(grads, opt_state, trained)
        metrics = {"loss": total / jnp.maximum(count, 1), "grad_norm": optax.global_norm(grads), "supervised": count}
        return jax.tree.map(lambda a, u: a + u, trained, updates), opt_state, metrics

    def evaluate(trained: nnx.State, frozen: nnx.State, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return loss(trained, frozen, batch, "none")

    return Trainer(step, jax.jit(evaluate), optimizer)


def micro_batches(batch: Batch, count: int) -> Batch:
    """Arrays [b t] as [count, b / count, t]; each takes rows of all devices, where they lie."""
    return jax.tree.map(lambda a: a.reshape(-1, count, a.shape[1]).swapaxes(0, 1), batch)


def start_state(trainer: Trainer, trained: nnx.State, mesh: Mesh) -> Any:
    """The optimizer's state: Adam's moments placed as the weights they belong to, counters everywhere."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda a: a if a.ndim else jax.device_put(a, everywhere), trainer.optimizer.init(trained))


def compile_step(trainer: Trainer, trained: nnx.State, opt_state: Any) -> Any:
    """The step with its results placed as its arguments are: one program, not another one from the second step on."""
    places = jax.tree.map(lambda a: a.sharding, (trained, opt_state))
    return jax.jit(trainer.step, donate_argnums=(0, 1), out_shardings=(*places, None))
