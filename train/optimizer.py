"""The optimizer as data: the links of its chain by name, each with what the configuration says of it."""

from typing import Any

import jax
import optax
from flax import nnx

from models.families import rows
from models.spec import DecoderSpec
from train.config import TrainConfig
from train.names import flat_names, with_values


def schedule(config: TrainConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, then as `config.schedule` says."""
    warmup, peak = warmup_steps(config, steps), config.learning_rate
    left, final = max(steps - warmup, 1), peak * config.final_learning_rate
    falling = round(config.wsd_decay * steps) if config.schedule == "wsd" else left
    falling = min(max(falling, 1), left)
    if config.schedule == "cosine":
        start = 0.0 if warmup else peak
        return optax.warmup_cosine_decay_schedule(start, peak, warmup, warmup + left, final)
    parts, ends = [optax.linear_schedule(0.0, peak, warmup)] if warmup else [], [warmup] if warmup else []
    if config.schedule == "constant":
        return optax.join_schedules([*parts, optax.constant_schedule(peak)], ends)
    if falling < left:
        parts, ends = [*parts, optax.constant_schedule(peak)], [*ends, warmup + left - falling]
    return optax.join_schedules([*parts, optax.linear_schedule(peak, final, falling)], ends)


def warmup_steps(config: TrainConfig, steps: int) -> int:
    """The configured warm-up, cut to leave the last step its peak."""
    return min(config.warmup_steps, max(steps - 1, 0))


def links(config: TrainConfig, spec: DecoderSpec, steps: int) -> dict[str, optax.GradientTransformation]:
    """What a gradient goes through, in this order: AdamW (Loshchilov and Hutter, 2019) behind a clipped global norm."""
    matrices = matrices_of(spec)

    def mask(trained: nnx.State) -> nnx.State:
        return with_values(trained, {name: decays(name, matrices) for name in flat_names(trained)})

    chain: dict[str, optax.GradientTransformation] = {}
    if config.clip_norm:
        chain["clip_by_global_norm"] = optax.clip_by_global_norm(config.clip_norm)
    chain["scale_by_adam"] = optax.scale_by_adam(config.b1, config.b2, config.eps)
    if config.weight_decay:
        chain["add_decayed_weights"] = optax.add_decayed_weights(config.weight_decay, mask)
    chain["scale_by_learning_rate"] = optax.scale_by_learning_rate(schedule(config, steps))
    if config.b_rate != 1:
        chain["scale_b"] = optax.stateless(lambda updates, _: faster_b(updates, config.b_rate))
    return chain


def faster_b(updates: Any, ratio: float) -> nnx.State:
    """LoRA+ (Hayou et al. 2024): B learns `ratio` times as fast as A, its decay included."""
    named = flat_names(updates)
    return with_values(updates, {name: a * ratio if name.endswith(".lora_b") else a for name, a in named.items()})


def make_optimizer(config: TrainConfig, spec: DecoderSpec, steps: int) -> optax.GradientTransformation:
    chain = optax.chain(*links(config, spec, steps).values())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        # optax raises a float to its whole count of steps, which strict promotion refuses; it is on in our tests.
        with jax.numpy_dtype_promotion("standard"):
            return chain.update(updates, state, params)

    return optax.GradientTransformation(chain.init, update)


def matrices_of(spec: DecoderSpec) -> frozenset[str]:
    """Paths of the rows that are matrices, by their HF axes; norms, scales and scalars are not."""
    return frozenset(leaf.path for leaf in rows(spec, stacked=True) if len(leaf.groups) > 1)


def decays(name: str, matrices: frozenset[str]) -> bool:
    """Whether a trained array shrinks by `weight_decay`: matrices do, LoRA's A and B among them."""
    return name in matrices or name.endswith((".lora_a", ".lora_b"))
