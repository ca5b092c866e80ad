"""What the engine's programs compute, and where their results lie: from arrays to run, or from shapes to plan."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.decoder import Decoder
from serve.engine import cache
from serve.engine.sampler import Rows, empty_rows, logprobs, most_likely, sample

STEPS = 8
"""In one dispatch to an accelerator, where each is dear; on CPU the loop around them is dearer."""


def steps_of(asked: int | Literal["auto"], platform: str) -> int:
    """Tokens of a row that one dispatch draws."""
    if asked != "auto":
        return asked
    return 1 if platform == "cpu" else STEPS


class Slots(NamedTuple):
    """What the host says of every slot, each [b]: where a sample that enters begins, with the last token of its prompt,
    and the length at which it ends. Only slots `in_use` are decoded."""

    token: np.ndarray
    position: np.ndarray
    entering: np.ndarray
    in_use: np.ndarray
    limit: np.ndarray
    ignore_end: np.ndarray
    rows: Rows


class Carry(NamedTuple):
    """What the device knows of every slot, each [b]: the last token, its position, and whether another follows."""

    token: Any
    position: Any
    active: Any


class Drawn(NamedTuple):
    """Drawn tokens with log-probabilities, and the most likely ones with theirs: [steps b] from `decode`."""

    token: Any
    logprob: Any
    best: Any
    best_logprob: Any


def empty_slots(b: int) -> Slots:
    whole, flags = (lambda: np.zeros(b, np.int32)), (lambda: np.zeros(b, bool))
    return Slots(whole(), whole(), flags(), flags(), whole(), flags(), empty_rows(b))


def empty_carry(b: int) -> Carry:
    return Carry(np.zeros(b, np.int32), np.zeros(b, np.int32), np.zeros(b, bool))


def draw(logits: jax.Array, rows: Rows, positions: jax.Array) -> Drawn:
    return describe(logits, *sample(logits, rows, positions))


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

    @property
    def apart(self) -> bool:
        """Whether what only moves keys and values is a program of its own, and `decode` reads the cache only."""
        return self.decoder.attention.platform == "cpu"

    @cached_property
    def shardings(self) -> dict[str, Any]:
        whole = None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())
        held = cache.places(self.decoder, self.slots, cache.HELD)
        fresh = cache.places(self.decoder, self.slots, cache.FRESH)
        prefill = None if self.mesh is None else (whole, fresh)
        decode = None if self.mesh is None else ((held, whole) if self.apart else held, whole, whole)
        return {"prefill": prefill, "place": held, "score": whole, "decode": decode, "flush": held}

    def empty_cache(self) -> cache.Layers:
        return jax.device_put(self._zeros(), self.shardings["place"])

    def empty_carry(self) -> Carry:
        return jax.device_put(empty_carry(self.slots), self.shardings["score"])

    def _zeros(self) -> cache.Layers:
        return cache.empty_cache(self.decoder, self.slots, self.max_length, self.steps)

    def jitted(self, name: str) -> Any:
        """A program by name, to be lowered; those that change the cache are given it for good."""
        function: Callable[..., Any] = getattr(self, name)
        given = name in ("place", "flush") or (name == "decode" and not self.apart)
        return jax.jit(function, donate_argnums=(0,) if given else (), out_shardings=self.shardings[name])

    def lower_prefill(self, t: int) -> jax.stages.Lowered:
        """The program that runs one prompt padded to `t` tokens, from shapes alone."""
        return self.jitted("prefill").lower(self.state, jax.ShapeDtypeStruct((1, t), jnp.int32))

    def lower_place(self, t: int) -> jax.stages.Lowered:
        """The program that writes such a prompt's keys and values into the cache, from shapes alone."""
        kv = jax.eval_shape(self.prefill, self.state, jax.ShapeDtypeStruct((1, t), jnp.int32))[1]
        fresh = cache.places(self.decoder, self.slots, cache.FRESH)
        return self.jitted("place").lower(self._held, _lying(kv, fresh), jax.ShapeDtypeStruct((2,), jnp.int32))

    def lower_decode(self) -> jax.stages.Lowered:
        """The program that draws `steps` tokens for every slot, from shapes alone."""
        shapes = empty_carry(self.slots), empty_slots(self.slots)
        return self.jitted("decode").lower(self._held, self.state, *shapes)

    @property
    def _held(self) -> Any:
        """The cache as shapes."""
        return _lying(jax.eval_shape(self._zeros), self.shardings["place"])

    def prefill(self, state: Any, tokens: jax.Array) -> Any:
        """tokens [1 t] -> the last layer's output [1 t d], and keys and values per layer [1 t k h]."""
        return nnx.merge(self.split[0], state).prefill_hidden(tokens)

    def place(self, layers: cache.Layers, kv: cache.Layers, numbers: jax.Array) -> cache.Layers:
        return cache.place(self.decoder, layers, kv, numbers, self.steps)

    def flush(self, layers: cache.Layers, block: cache.Layers, began: jax.Array) -> cache.Layers:
        return cache.flush(self.decoder, layers, block, began)

    def score(self, state: Any, hidden: jax.Array, tokens: jax.Array) -> Drawn:
        """Of tokens [t], each after the position [1 t d] that it follows."""
        logits = nnx.merge(self.split[0], state).logits(hidden)[0]
        return describe(logits, tokens, most_likely(logits))

    def decode(self, layers: Any, state: Any, carry: Carry, slots: Slots) -> tuple[Any, Carry, Drawn]:
        """While any row is active and steps remain: run, draw, advance the active rows, end those that are done.

        The cache with what was added; where that is kept `apart`, the block of it and where the rows' blocks begin.
        """
        decoder = nnx.merge(self.split[0], state)
        eos_ids = jnp.asarray(sorted(self.eos_ids), jnp.int32)
        began = jnp.where(slots.entering, slots.position, carry.position)

        def advance(step: Any, block: cache.Layers, carry: Carry) -> tuple[cache.Layers, Carry, Drawn]:
            token, position, active = carry
            logits, block = cache.decode(decoder, token, position, layers, block, began, step)
            drawn = draw(logits, slots.rows, position + 1)
            token = jnp.where(active, drawn.token, token)
            position = jnp.where(active, position + 1, position)
            ended = jnp.any(token[:, None] == eos_ids[None], axis=1) & ~slots.ignore_end
            return block, Carry(token, position, active & ~ended & (position + 1 < slots.limit)), drawn

        block = cache.empty_block(decoder, self.slots, self.steps)
        token = jnp.where(slots.entering, slots.token, carry.token)
        carry = Carry(token, began, (carry.active | slots.entering) & slots.in_use)
        if self.steps == 1:
            block, carry, drawn = advance(jnp.int32(0), block, carry)
            drawn = jax.tree.map(lambda x: x[None], drawn)
        else:
            block, carry, drawn = self._repeat(advance, block, carry)
        return (block, began) if self.apart else cache.flush(self.decoder, layers, block, began), carry, drawn

    def _repeat(self, advance: Any, block: cache.Layers, carry: Carry) -> tuple[cache.Layers, Carry, Drawn]:
        def more(state: tuple[Any, ...]) -> jax.Array:
            return (state[0] < self.steps) & jnp.any(state[2].active)

        def once(state: tuple[Any, ...]) -> tuple[Any, ...]:
            step, block, carry, out = state
            block, carry, drawn = advance(step, block, carry)
            return step + 1, block, carry, jax.tree.map(lambda kept, x: kept.at[step].set(x), out, drawn)

        whole, real = (jnp.zeros((self.steps, self.slots), kind) for kind in (jnp.int32, jnp.float32))
        start = (jnp.int32(0), block, carry, Drawn(whole, real, whole, real))
        return jax.lax.while_loop(more, once, start)[1:]
