"""A design task: ports, a description in words, the Verilog body, and what a testbench needs to exercise it.

`params` is everything that changes behaviour; names and wording are free, so two problems may share `params`.
"""

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

from recipes.starter.testbench import Stimulus, write_testbench
from recipes.starter.words import Pick, Port, Reset

Params = tuple[tuple[str, int | str], ...]

MAX_RUN = 265

KEYWORDS = re.compile(
    "always|and|assign|begin|case|default|else|end|endcase|for|if|integer|localparam|negedge|or|posedge|reg|wire"
)


@dataclass(frozen=True)
class Problem:
    """`lead` continues "The module should ..."; `details` are whole sentences; `body` is the code below the ports.

    `hold` names the inputs (enables and the like) a testbench keeps at a value during the undisturbed part of
    `run` clock cycles; `directed` are statements that steer its random inputs towards rare cases.
    """

    name: str
    ports: tuple[Port, ...]
    lead: str
    details: tuple[str, ...]
    thought: tuple[str, ...]
    body: tuple[str, ...]
    clock: str = ""
    reset: Reset | None = None
    hold: tuple[tuple[str, int], ...] = ()
    directed: tuple[str, ...] = ()
    run: int = 40
    family: str = ""
    params: Params = ()

    @property
    def description(self) -> str:
        return " ".join((f"The module should {self.lead}.", *self.details))

    def interface(self) -> str:
        """The port list as prompts give it, one ` - input d (8 bits)` per line."""
        return "\n".join(
            f" - {p.direction} {p.name}" + (f" ({p.width} bits)" if p.width > 1 else "") for p in self.ports
        )

    def prompt(self, *, wrap: bool = False) -> str:
        intro = (
            "I would like you to implement a module named TopModule with the following interface. "
            "All input and output ports are one bit unless otherwise specified."
        )
        text = self.description
        if wrap:
            intro, text = (wrapped(part, 74) for part in (intro, text))
        return f"{intro}\n\n{self.interface()}\n\n{text}\n"

    def code(self, module_name: str) -> str:
        ports = ",\n".join(f"  {p.declaration()}" for p in self.ports)
        body = "\n".join(f"  {line}" if line else "" for line in self.body)
        return f"module {module_name} (\n{ports}\n);\n\n{body}\n\nendmodule\n"

    def testbench(self) -> str:
        return write_testbench(
            self.ports,
            Stimulus(self.clock, self.reset, hold=self.hold, directed=self.directed, run=min(self.run, MAX_RUN)),
        )


def wrapped(text: str, width: int) -> str:
    """Wrap prose at `width`; lines that start with a space (tables) stay as they are."""
    lines = text.split("\n")
    return "\n".join(line if line.startswith(" ") else textwrap.fill(line, width) for line in lines)


def normalised(code: str) -> str:
    """Code without its module name and with single spaces, for comparing texts."""
    return " ".join(re.sub(r"\bmodule\s+\w+", "module", code).split())


def fingerprint(problem: Problem) -> str:
    """The code with ports renamed in order of use: equal for two problems that differ in names and port order only."""
    renamed: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        word = match.group()
        return word if KEYWORDS.fullmatch(word) else renamed.setdefault(word, f"n{len(renamed)}")

    body = re.sub(r"(?<!['$\w])[A-Za-z_]\w*", rename, "\n".join(problem.body))
    ports = sorted(f"{p.direction} {p.width} {renamed.get(p.name, '')}" for p in problem.ports)
    return "\n".join((*ports, body))


@dataclass(frozen=True)
class Family:
    """`make(pick, **params)` builds a problem; `space` lists all params. `splits` is false for spaces too small.

    `composed` names params that are themselves compositions (a truth table), so a held-out value may be new.
    """

    name: str
    make: Callable[..., Problem]
    space: tuple[Params, ...]
    splits: bool = True
    composed: tuple[str, ...] = ()

    def build(self, params: Params, rng: Random) -> Problem:
        return replace(self.make(Pick(rng), **dict(params)), family=self.name, params=params)


def grid(keep: Callable[..., bool] | None = None, /, **axes: Any) -> tuple[Params, ...]:
    """Every combination of the axes' values for which `keep(**values)` holds."""
    points = (tuple(zip(axes, values, strict=True)) for values in product(*axes.values()))
    return tuple(point for point in points if keep is None or keep(**dict(point)))
