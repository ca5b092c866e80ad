"""The few compiled programs the engine runs, all compiled at warm-up and never after.

Per prompt bucket t: `prefill` (one prompt padded to t), `place` (its keys and values into a slot) and `score`
(log-probabilities of the prompt). Once: `first` (a first token) and `decode`, several steps over all slots.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from common.progress import bar
from serve.engine.definitions import Definitions, Drawn, Slots, empty_slots
from serve.engine.sampler import Rows, empty_rows

SMALLEST_BUCKET = 128


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


class Programs:
    """Compiled programs over one decoder; the cache of all slots lives here, on the device."""

    def __init__(self, definitions: Definitions):
        self.definitions, self.buckets = definitions, buckets_for(definitions.max_length)
        self.slots, self.eos_ids = definitions.slots, definitions.eos_ids
        self._state, self._cache = definitions.state, definitions.empty_cache()
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
        out = self.run("prefill", bucket, self._state, tokens, np.int32(len(prompt)))
        return Prefilled(len(prompt), tokens, *out)

    def place(self, prefilled: Prefilled, slot: int) -> None:
        """Copy a prefilled prompt's keys and values into `slot`."""
        numbers = np.array([slot, prefilled.length], np.int32)
        self._cache = self.run("place", prefilled.tokens.shape[1], self._cache, prefilled.kv, numbers)

    def first(self, prefilled: Prefilled, rows: Rows) -> Drawn:
        """Draw a sample's first token by `rows` (of one row), arrays [1]."""
        position = np.array([prefilled.length], np.int32)
        return jax.device_get(self.run("first", 1, prefilled.logits, frozen(rows), position))

    def score(self, prefilled: Prefilled) -> Drawn:
        """Log-probabilities of the prompt's tokens 1.., arrays [length - 1]."""
        tokens = prefilled.tokens
        drawn = self.run("score", tokens.shape[1], self._state, prefilled.hidden, tokens)
        return Drawn(*(array[: prefilled.length - 1] for array in jax.device_get(drawn)))

    def decode(self, slots: Slots) -> Drawn:
        """Up to `steps` tokens for every active slot, arrays [steps b]; a row's tokens after its end are not meant."""
        self._cache, drawn = self.run("decode", self.slots, self._cache, self._state, frozen(slots))
        return jax.device_get(drawn)

    def run(self, name: str, size: int, *args: Any) -> Any:
        """Run a program by name, compiled on its first use."""
        if (name, size) not in self._compiled:
            self._compiled[name, size] = self.definitions.jitted(name).lower(*args).compile()
        return self._compiled[name, size](*args)
