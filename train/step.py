"""One optimizer step over a packed batch: loss on supervised tokens, gradients of the trained parameters only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from models.decoder import Decoder, Remat
from train.config import TrainConfig
from train.loss import Batch, loss_of


class Trainer(NamedTuple):
    """Programs over (trained, optimizer state, frozen, batch); `trained` is float32 whatever the compute type."""

    step: Callable[[nnx.State, Any, nnx.State, Batch], tuple[nnx.State, Any, dict[str, jax.Array]]]
    evaluate: Callable[[nnx.State, nnx.State, Batch], tuple[jax.Array, jax.Array]]
    optimizer: optax.GradientTransformation


def schedule(config: TrainConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, then a cosine to `final_learning_rate` of the peak."""
    warmup = min(config.warmup_steps, max(steps - 1, 0))
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.learning_rate,
        config.learning_rate,
        warmup,
        max(steps, warmup + 1),
        config.learning_rate * config.final_learning_rate,
    )


def make_trainer(config: TrainConfig, graph: nnx.GraphDef[Decoder], dtype: str, steps: int) -> Trainer:
    """Compile-ready programs for a decoder whose graph is `graph`."""
    adam = optax.adamw(schedule(config, steps), b2=0.99, weight_decay=config.weight_decay)
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    optimizer = optax.chain(*clip, adam)

    def loss(trained: nnx.State, frozen: nnx.State, batch: Batch, remat: Remat) -> tuple[jax.Array, jax.Array]:
        decoder = nnx.merge(graph, jax.tree.map(lambda a: a.astype(dtype), trained), frozen)
        x = decoder.hidden(batch["tokens"], batch["positions"], batch["segments"], remat, config.scan_layers)
        total, count = loss_of(decoder, x, batch)
        return total / jnp.maximum(count, 1), count

    def step(
        trained: nnx.State, opt_state: Any, frozen: nnx.State, batch: Batch
    ) -> tuple[nnx.State, Any, dict[str, jax.Array]]:
        (value, count), grads = jax.value_and_grad(loss, has_aux=True)(trained, frozen, batch, config.remat)
        updates, opt_state = optimizer.update(grads, opt_state, trained)
        metrics = {"loss": value, "grad_norm": optax.global_norm(grads), "supervised": count}
        return jax.tree.map(lambda a, u: a + u, trained, updates), opt_state, metrics

    def evaluate(trained: nnx.State, frozen: nnx.State, batch: Batch) -> tuple[jax.Array, jax.Array]:
        value, count = loss(trained, frozen, batch, "none")
        return value * count, count

    return Trainer(step, jax.jit(evaluate), optimizer)


def compile_step(trainer: Trainer, trained: nnx.State, opt_state: Any) -> Callable[..., Any]:
    """The step with its results placed as its arguments are: one program, not another one from the second step on."""
    places = jax.tree.map(lambda a: a.sharding, (trained, opt_state))
    return jax.jit(trainer.step, donate_argnums=(0, 1), out_shardings=(*places, None))
