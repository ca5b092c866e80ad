"""The few compiled programs the engine runs, all compiled at warm-up and never after.

Per prompt bucket t: `prefill` (prompts padded to t, all but the last token of each), `place` (one's keys and values
into a slot) and `score` (log-probabilities of one). Once: `decode`, steps over all slots, of which the first of a
sample takes the prompt's last token; and on CPU `flush`, which writes what a step added.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from common.progress import bar
from serve.engine.definitions import Definitions, Drawn, Slots, empty_slots
from serve.engine.pace import Pace

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

    def __init__(self, definitions: Definitions, pace: Pace):
        self.definitions, self.pace, self.buckets = definitions, pace, buckets_for(definitions.max_length)
        self.slots, self.steps, self.eos_ids = definitions.slots, definitions.steps, definitions.eos_ids
        self._state, self._cache = definitions.state, definitions.empty_cache()
        self._carry = definitions.empty_carry()
        self._compiled: dict[tuple[str, int, int], Callable[..., Any]] = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def warm_up(self) -> float:
        """Compile and run every program once; returns the seconds it took."""
        start = time.monotonic()
        prefills = [(t, rows) for t in self.buckets for rows in self.pace.rows(t)]
        with bar("compile", len(prefills) + 2 * len(self.buckets) + 1, "programs") as progress:
            for t, rows in prefills:
                prefilled = self.prefill([(0,) * (t + 1)] * rows)[0]
                progress.advance(note=f"{rows} prompts of {t}" if rows > 1 else f"a prompt of {t}")
                if rows == self.pace.rows(t)[0]:
                    self.place(prefilled, 0)
                    progress.advance()
                    self.score(prefilled)
                    progress.advance()
            slots = empty_slots(self.slots)
            slots.entering[0] = slots.in_use[0] = True
            jax.block_until_ready(self.decode(slots))
            progress.advance(note="decode")
        return time.monotonic() - start

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[Prefilled]:
        """Run prompts but for their last tokens, padded to their buckets, those of one bucket together."""
        done: dict[int, Prefilled] = {}
        for t in self.buckets:
            mine = [i for i, prompt in enumerate(prompts) if self._bucket(prompt) == t]
            counts = self.pace.rows(t)
            while mine:
                rows = next((count for count in counts if count >= len(mine)), counts[-1])
                now, mine = mine[:rows], mine[rows:]
                tokens = np.zeros((rows, t), np.int32)
                for row, i in enumerate(now):
                    tokens[row, : len(prompts[i]) - 1] = prompts[i][:-1]
                out = self.run("prefill", t, self._state, tokens, rows=rows)
                done |= {i: Prefilled(prompts[i], *out[row]) for row, i in enumerate(now)}
        return [done[i] for i in range(len(prompts))]

    def _bucket(self, prompt: Sequence[int]) -> int:
        return next(t for t in self.buckets if t >= len(prompt) - 1)

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

    def run(self, name: str, size: int, *args: Any, rows: int = 1) -> Any:
        """Run a program by name, compiled on its first use."""
        key = (name, size, rows)
        if key not in self._compiled:
            moves = self.definitions.apart and name in ("place", "flush")
            lowered = self.definitions.jitted(name, rows).lower(*args)
            self._compiled[key] = lowered.compile(compiler_options=MOVED_AS_IT_IS if moves else None)
        return self._compiled[key](*args)
