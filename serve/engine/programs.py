"""The few compiled programs the engine runs, all compiled at warm-up and never after.

Per prompt bucket t: `prefill` (a prompt padded to t, all but its last token), `place` (its keys and values into a slot)
and `score` (its log-probabilities). Once: `decode`, steps over all slots, of which the first of a sample takes the last
token of its prompt; and on CPU `flush`, which writes what a dispatch added.

A prompt runs in the program of its bucket whatever waits beside it: programs for other numbers of prompts would round
their numbers otherwise (and on CPU four prompts together take nine tenths of the time of four alone).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from common.progress import bar
from serve.engine.definitions import Definitions, Drawn, Slots, empty_slots

SMALLEST_BUCKET = 128
MOVED_AS_IT_IS: dict[str, bool | str] = {"xla_disable_hlo_passes": "float-normalization-bf16"}
"""For programs that only move numbers on CPU: as if they reckoned with them, XLA would convert a whole cache to float32
and back to write one token."""


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
    """A prompt that has been run but for its last token; on the device, padded to the bucket, the last layer's output
    [1 t d] and keys and values per layer [1 t k h]."""

    prompt: Sequence[int]
    hidden: jax.Array
    kv: Any

    @property
    def length(self) -> int:
        return len(self.prompt) - 1

    @property
    def bucket(self) -> int:
        return self.hidden.shape[1]


class Programs:
    """Compiled programs over one decoder; the cache of all slots lives here, on the device."""

    def __init__(self, definitions: Definitions):
        self.definitions, self.buckets = definitions, buckets_for(definitions.max_length)
        self.slots, self.steps, self.eos_ids = definitions.slots, definitions.steps, definitions.eos_ids
        self._state, self._cache = definitions.state, definitions.empty_cache()
        self._carry = definitions.empty_carry()
        self._compiled: dict[tuple[str, int], Callable[..., Any]] = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def warm_up(self) -> float:
        """Compile and run every program once; returns the seconds it took."""
        start = time.monotonic()
        with bar("compile", 3 * len(self.buckets) + 1, "programs") as progress:
            for t in self.buckets:
                prefilled = self.prefill((0,) * (t + 1))
                progress.advance(note=f"prompts of {t}")
                self.place(prefilled, 0)
                progress.advance()
                self.score(prefilled)
                progress.advance()
            slots = empty_slots(self.slots)
            slots.entering[0] = slots.in_use[0] = True
            jax.block_until_ready(self.decode(slots))
            progress.advance(note="decode")
        return time.monotonic() - start

    def prefill(self, prompt: Sequence[int]) -> Prefilled:
        """Run a prompt but for its last token, padded to its bucket."""
        bucket = next(t for t in self.buckets if t >= len(prompt) - 1)
        tokens = np.zeros((1, bucket), np.int32)
        tokens[0, : len(prompt) - 1] = prompt[:-1]
        return Prefilled(prompt, *self.run("prefill", bucket, self._state, tokens))

    def place(self, prefilled: Prefilled, slot: int) -> None:
        """Copy a prefilled prompt's keys and values into `slot`."""
        numbers = np.array([slot, prefilled.length], np.int32)
        self._cache = self.run("place", prefilled.bucket, self._cache, prefilled.kv, numbers)

    def score(self, prefilled: Prefilled) -> Drawn:
        """Log-probabilities of the prompt's tokens 1.., arrays [length - 1]."""
        tokens = np.zeros(prefilled.bucket, np.int32)
        tokens[: prefilled.length] = prefilled.prompt[1:]
        drawn = self.run("score", prefilled.bucket, self._state, prefilled.hidden, tokens)
        return Drawn(*(array[: prefilled.length] for array in jax.device_get(drawn)))

    def decode(self, slots: Slots) -> Drawn:
        """Up to `steps` tokens for every slot in use, arrays [steps b], on the device and perhaps still under way;
        a row's tokens after its end are not meant."""
        out, self._carry, drawn = self.run("decode", self.slots, self._cache, self._state, self._carry, frozen(slots))
        self._cache = self.run("flush", self.slots, self._cache, *out) if self.definitions.apart else out
        return drawn

    def run(self, name: str, size: int, *args: Any) -> Any:
        """Run a program by name, compiled on its first use."""
        if (name, size) not in self._compiled:
            moves = self.definitions.apart and name in ("place", "flush")
            lowered = self.definitions.jitted(name).lower(*args)
            self._compiled[name, size] = lowered.compile(compiler_options=MOVED_AS_IT_IS if moves else None)
        return self._compiled[name, size](*args)
