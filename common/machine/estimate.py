"""What a compiled program needs of a chip, and how long it may take there, from the compiler's own answer.

Time is the sum of the cycles that XLA's cost model gives each operation, and of the bytes sent between chips at the
rate of a link; kernels that the model does not know (Pallas) count nothing. No clock, but what changes a program by a
tenth shows in it, and it needs no chip.
"""

from dataclasses import dataclass
from typing import Any

from common.machine.chips import Chip
from common.machine.program import Program


@dataclass(frozen=True)
class Estimate:
    """Of one run of a program, on each chip."""

    memory: int
    """Bytes: arguments, results, temporaries and code."""
    compute: float
    """Seconds of cycles."""
    links: float
    """Seconds of sending between chips, as if nothing else ran meanwhile."""
    gathered: int
    """Bytes of arrays put together from all chips."""
    prefetched: float
    """Seconds of copying ahead of need, which runs beside the rest and is in neither sum."""

    @property
    def seconds(self) -> float:
        return self.compute + self.links

    @property
    def gib(self) -> float:
        return self.memory / 2**30


def estimate(compiled: Any, chip: Chip, open_turns: int = 1) -> Estimate:
    """Of a `jax.stages.Compiled` for TPU; loops whose end is not known before count `open_turns` times."""
    stats = compiled.memory_analysis()
    memory = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )
    cost = Program(compiled.as_text(), open_turns).cost
    return Estimate(
        memory,
        cost.cycles / chip.clock,
        sum(cost.sent.values()) / chip.link_rate,
        cost.gathered,
        cost.prefetched / chip.memory_rate,
    )
