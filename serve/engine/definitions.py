"""What the engine's programs compute, and where their results lie: from arrays to run, or from shapes to plan."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.decoder import Decoder
from serve.engine import cache
from serve.engine.sampler import Rows, empty_rows, logprobs, sample


class Slots(NamedTuple):
    """Host-side state of every slot, each [b]: the last token and its position, and the length at which a row ends."""

    token: np.ndarray
    position: np.ndarray
    limit: np.ndarray
    active: np.ndarray
    ignore_end: np.ndarray
    rows: Rows


class Drawn(NamedTuple):
    """Drawn tokens with log-probabilities, and the most likely ones with theirs: [b], or [steps b] from `decode`."""

    token: Any
    logprob: Any
    best: Any
    best_logprob: Any


def empty_slots(b: int) -> Slots:
    zeros = np.zeros(b, np.int32)
    return Slots(zeros, zeros.copy(), zeros.copy(), np.zeros(b, bool), np.zeros(b, bool), empty_rows(b))


def draw(logits: jax.Array, rows: Rows, positions: jax.Array) -> Drawn:
    tokens, best = sample(logits, rows, positions)
    return describe(logits, tokens, best)


def describe(logits: jax.Array, tokens: jax.Array, best: jax.Array) -> Drawn:
    logprob, best_logprob = logprobs(logits, tokens, best)
    return Drawn(tokens, logprob, best, best_logprob)


def _lying(shapes: Any, places: Any) -> Any:
    """Shapes with their places; None: on one device."""
    if places is None:
        return shapes
    return jax.tree.map(lambda a, at: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at), shapes, places)


@dataclass(frozen=True)
class Definitions:
    """The programs over one decoder, whose weights may be arrays or shapes; `state` is what they are given of it.

    Results lie as `shardings` says: None on one device.
    """

    decoder: Decoder
    slots: int
    max_length: int
    steps: int
    eos_ids: frozenset[int]

    @cached_property
    def split(self) -> tuple[nnx.GraphDef[Decoder], nnx.State]:
        return nnx.split(self.decoder)

    @property
    def state(self) -> nnx.State:
        return self.split[1]

    @property
    def mesh(self) -> Mesh | None:
        return self.decoder.attention.mesh

    @cached_property
    def shardings(self) -> dict[str, Any]:
        whole = None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())
        held = cache.places(self.decoder, self.slots, cache.HELD)
        fresh = cache.places(self.decoder, self.slots, cache.FRESH)
        prefill = None if self.mesh is None else (whole, whole, fresh)
        decode = None if self.mesh is None else (held, whole)
        return {"prefill": prefill, "place": held, "first": whole, "score": whole, "decode": decode}

    def empty_cache(self) -> cache.Layers:
        return jax.device_put(self._zeros(), self.shardings["place"])

    def _zeros(self) -> cache.Layers:
        return cache.empty_cache(self.decoder, self.slots, self.max_length, self.steps)

    def jitted(self, name: str) -> Any:
        """A program by name, to be lowered; those that take the cache are given it for good."""
        function: Callable[..., Any] = draw if name == "first" else getattr(self, name)
        donated = (0,) if name in ("place", "decode") else ()
        return jax.jit(function, donate_argnums=donated, out_shardings=self.shardings[name])

    def lower_prefill(self, t: int) -> jax.stages.Lowered:
        """The program that runs one prompt padded to `t` tokens, from shapes alone."""
        numbers = (jax.ShapeDtypeStruct((1, t), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32))
        return self.jitted("prefill").lower(self.state, *numbers)

    def lower_place(self, t: int) -> jax.stages.Lowered:
        """The program that writes such a prompt's keys and values into the cache, from shapes alone."""
        numbers = (jax.ShapeDtypeStruct((1, t), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32))
        kv = jax.eval_shape(self.prefill, self.state, *numbers)[2]
        fresh = cache.places(self.decoder, self.slots, cache.FRESH)
        return self.jitted("place").lower(self._held, _lying(kv, fresh), jax.ShapeDtypeStruct((2,), jnp.int32))

    def lower_decode(self) -> jax.stages.Lowered:
        """The program that draws `steps` tokens for every slot, from shapes alone."""
        return self.jitted("decode").lower(self._held, self.state, empty_slots(self.slots))

    @property
    def _held(self) -> Any:
        """The cache as shapes."""
        return _lying(jax.eval_shape(self._zeros), self.shardings["place"])

    def prefill(self, state: Any, tokens: jax.Array, length: jax.Array) -> Any:
        decoder = nnx.merge(self.split[0], state)
        hidden, kv = decoder.prefill_hidden(tokens)
        last = jax.lax.dynamic_slice_in_dim(hidden, length - 1, 1, axis=1)
        return hidden, decoder.logits(last)[:, 0], kv

    def place(self, layers: cache.Layers, kv: cache.Layers, numbers: jax.Array) -> cache.Layers:
        return cache.place(self.decoder, layers, kv, numbers, self.steps)

    def score(self, state: Any, hidden: jax.Array, tokens: jax.Array) -> Drawn:
        logits = nnx.merge(self.split[0], state).logits(hidden)[0]
        best = jnp.argmax(logits, axis=1).astype(jnp.int32)
        return describe(logits, jnp.roll(tokens[0], -1), best)

    def decode(self, layers: Any, state: Any, slots: Slots) -> tuple[Any, Drawn]:
        """While any row is active and steps remain: run, draw, advance the active rows, end those that are done."""
        decoder = nnx.merge(self.split[0], state)
        eos_ids = jnp.asarray(sorted(self.eos_ids), jnp.int32)
        began = jnp.asarray(slots.position)

        def more(carry: tuple[Any, ...]) -> jax.Array:
            step, active = carry[0], carry[4]
            return (step < self.steps) & jnp.any(active)

        def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            step, new, token, position, active, out = carry
            logits, new = cache.decode(decoder, token, position, layers, new, began, step)
            drawn = draw(logits, slots.rows, position + 1)
            out = Drawn(*(buffer.at[step].set(value) for buffer, value in zip(out, drawn, strict=True)))
            token = jnp.where(active, drawn.token, token)
            position = jnp.where(active, position + 1, position)
            ended = jnp.any(token[:, None] == eos_ids[None], axis=1) & ~slots.ignore_end
            return step + 1, new, token, position, active & ~ended & (position + 1 < slots.limit), out

        b, k = self.slots, self.steps
        whole, real = jnp.zeros((k, b), jnp.int32), jnp.zeros((k, b), jnp.float32)
        block = cache.empty_block(decoder, b, k)
        start = (jnp.int32(0), block, slots.token, slots.position, slots.active, Drawn(whole, real, whole, real))
        _, block, _, _, _, out = jax.lax.while_loop(more, advance, start)
        return cache.flush(decoder, layers, block, began), out
