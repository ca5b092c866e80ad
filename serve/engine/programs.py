"""The few compiled programs the engine runs, all compiled at warm-up and never after.

Per prompt bucket t: `prefill` (one prompt padded to t), `place` (its keys and values into a slot) and `score`
(log-probabilities of the prompt). Once: `first` (a first token) and `decode`, several steps over all slots.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from common.progress import bar
from models.decoder import Decoder
from serve.engine import cache
from serve.engine.sampler import Rows, empty_rows, logprobs, sample

SMALLEST_BUCKET = 128


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


def frozen(arrays: Any) -> Any:
    """Copies that nobody can write to. A program may read a host array where it lies (JAX on CPU does, when it lies on
    64 bytes) and after the call has returned (other devices still run), so what it was given never changes again."""

    def copy(array: np.ndarray) -> np.ndarray:
        own = array.copy()
        own.flags.writeable = False
        return own

    return jax.tree.map(copy, arrays)


def buckets_for(max_length: int) -> list[int]:
    """Prompt lengths that programs are compiled for: 128, 256, 512, ... and max_length itself."""
    sizes = [SMALLEST_BUCKET << i for i in range(max_length.bit_length()) if SMALLEST_BUCKET << i < max_length]
    return [*sizes, max_length]


class Prefilled(NamedTuple):
    """A prompt that has been run, on the device: last layer's output [1 t d], logits [1 v] after its last token, and
    keys and values per layer [1 t k h]; `tokens` [1 t] are padded to the bucket."""

    length: int
    tokens: np.ndarray
    hidden: jax.Array
    logits: jax.Array
    kv: Any


def draw(logits: jax.Array, rows: Rows, positions: jax.Array) -> Drawn:
    tokens, best = sample(logits, rows, positions)
    return describe(logits, tokens, best)


def describe(logits: jax.Array, tokens: jax.Array, best: jax.Array) -> Drawn:
    logprob, best_logprob = logprobs(logits, tokens, best)
    return Drawn(tokens, logprob, best, best_logprob)


class Programs:
    """Compiled programs over one decoder; the cache of all slots lives here, on the device."""

    def __init__(self, decoder: Decoder, *, slots: int, max_length: int, steps: int, eos_ids: frozenset[int]):
        self.buckets, self.slots, self.steps, self.eos_ids = buckets_for(max_length), slots, steps, eos_ids
        self._graph, self._state = nnx.split(decoder)
        self._places = self._out_places(decoder)
        self._cache = jax.device_put(cache.empty_cache(decoder, slots, max_length, steps), self._places["place"])
        self._compiled: dict[tuple[str, int], Callable[..., Any]] = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def warm_up(self) -> float:
        """Compile and run every program once; returns the seconds it took."""
        start = time.monotonic()
        with bar("compile", 3 * len(self.buckets) + 2, "programs") as progress:
            for t in self.buckets:
                prefilled = self.prefill((0,) * t)
                progress.advance(note=f"prompts of {t}")
                self.place(prefilled, 0)
                progress.advance()
                self.score(prefilled)
                progress.advance()
                self.first(prefilled, empty_rows(1))
            progress.advance()
            slots = empty_slots(self.slots)
            slots.active[0] = True
            self.decode(slots)
            progress.advance(note="decode")
        return time.monotonic() - start

    def prefill(self, prompt: Sequence[int]) -> Prefilled:
        """Run one prompt, padded to its bucket."""
        bucket = next(t for t in self.buckets if t >= len(prompt))
        tokens = np.zeros((1, bucket), np.int32)
        tokens[0, : len(prompt)] = prompt
        out = self.run("prefill", bucket, self._prefill, self._state, tokens, np.int32(len(prompt)))
        return Prefilled(len(prompt), tokens, *out)

    def place(self, prefilled: Prefilled, slot: int) -> None:
        """Copy a prefilled prompt's keys and values into `slot`."""
        numbers = np.array([slot, prefilled.length], np.int32)
        self._cache = self.run("place", prefilled.tokens.shape[1], self._place, self._cache, prefilled.kv, numbers)

    def first(self, prefilled: Prefilled, rows: Rows) -> Drawn:
        """Draw a sample's first token by `rows` (of one row), arrays [1]."""
        position = np.array([prefilled.length], np.int32)
        return jax.device_get(self.run("first", 1, draw, prefilled.logits, frozen(rows), position))

    def score(self, prefilled: Prefilled) -> Drawn:
        """Log-probabilities of the prompt's tokens 1.., arrays [length - 1]."""
        tokens = prefilled.tokens
        drawn = self.run("score", tokens.shape[1], self._score, self._state, prefilled.hidden, tokens)
        return Drawn(*(array[: prefilled.length - 1] for array in jax.device_get(drawn)))

    def decode(self, slots: Slots) -> Drawn:
        """Up to `steps` tokens for every active slot, arrays [steps b]; a row's tokens after its end are not meant."""
        self._cache, drawn = self.run("decode", self.slots, self._decode, self._cache, self._state, frozen(slots))
        return jax.device_get(drawn)

    def run(self, name: str, size: int, function: Callable[..., Any], *args: Any) -> Any:
        """Run a program by name, compiled on its first use; those that take the cache are given it for good."""
        if (name, size) not in self._compiled:
            donated = (0,) if args[0] is self._cache else ()
            program = jax.jit(function, donate_argnums=donated, out_shardings=self._places[name])
            self._compiled[name, size] = program.lower(*args).compile()
        return self._compiled[name, size](*args)

    def _out_places(self, decoder: Decoder) -> dict[str, Any]:
        """Where each program's results lie; None on one device."""
        mesh = decoder.attention.mesh
        whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        held = cache.places(decoder, ("bkhs", "bksh"))
        fresh = cache.places(decoder, ("btkh", "btkh"))
        prefill = None if mesh is None else (whole, whole, fresh)
        decode = None if mesh is None else (held, whole)
        return {"prefill": prefill, "place": held, "first": whole, "score": whole, "decode": decode}

    def _prefill(self, state: Any, tokens: jax.Array, length: jax.Array) -> Any:
        decoder = nnx.merge(self._graph, state)
        hidden, kv = decoder.prefill_hidden(tokens)
        last = jax.lax.dynamic_slice_in_dim(hidden, length - 1, 1, axis=1)
        return hidden, decoder.logits(last)[:, 0], kv

    def _place(self, layers: cache.Layers, kv: cache.Layers, numbers: jax.Array) -> cache.Layers:
        return cache.place(layers, kv, numbers, self.steps)

    def _score(self, state: Any, hidden: jax.Array, tokens: jax.Array) -> Drawn:
        logits = nnx.merge(self._graph, state).logits(hidden)[0]
        best = jnp.argmax(logits, axis=1).astype(jnp.int32)
        return describe(logits, jnp.roll(tokens[0], -1), best)

    def _decode(self, layers: Any, state: Any, slots: Slots) -> tuple[Any, Drawn]:
        """While any row is active and steps remain: run, draw, advance the active rows, end those that are done."""
        decoder = nnx.merge(self._graph, state)
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
        return cache.flush(layers, block, began), out
