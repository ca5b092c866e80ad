"""Words and code shared by the families: choices, ports, resets, literals, clocked blocks, common sentences."""

from dataclasses import dataclass
from random import Random

from recipes.starter.names import NAMES, PAIRS, RESET_NAMES, SERIES


@dataclass(frozen=True)
class Port:
    name: str
    direction: str
    width: int = 1
    reg: bool = False

    def declaration(self) -> str:
        kind = "output reg" if self.reg else self.direction
        return f"{kind} {vector(self.width)}{self.name}"


@dataclass(frozen=True)
class Reset:
    name: str
    asynchronous: bool
    low: bool

    @property
    def event(self) -> str:
        """What an asynchronous reset adds to the sensitivity list."""
        return f" or {'negedge' if self.low else 'posedge'} {self.name}" if self.asynchronous else ""

    @property
    def test(self) -> str:
        return f"!{self.name}" if self.low else self.name

    @property
    def active(self) -> int:
        return 0 if self.low else 1


class Pick:
    """Random choices of one problem; `name` never gives two ports the same name."""

    def __init__(self, rng: Random):
        self.rng = rng
        self.used: set[str] = set()

    def one(self, *options: str) -> str:
        return self.rng.choice(options)

    def name(self, role: str) -> str:
        name = self.rng.choice([n for n in NAMES[role] if n not in self.used])
        self.used.add(name)
        return name

    def pair(self) -> tuple[str, str]:
        pair = self.rng.choice([p for p in PAIRS if not self.used.intersection(p)])
        self.used.update(pair)
        return pair

    def series(self, count: int) -> list[str]:
        series = self.rng.choice(SERIES)
        names = [str(name) for name in (series.split() if " " in series else series)][:count]
        self.used.update(names)
        return names

    def reset(self, kind: str) -> Reset | None:
        if kind == "none":
            return None
        name = self.rng.choice([n for n in RESET_NAMES[kind] if n not in self.used])
        self.used.add(name)
        return Reset(name, asynchronous=kind.startswith("async"), low=kind.endswith("low"))

    def ports(self, inputs: list[Port], outputs: list[Port]) -> tuple[Port, ...]:
        """Clock first, outputs last; the inputs between them in either the given or a random order."""
        fixed, free = (inputs[:1], inputs[1:]) if inputs and inputs[0].name in NAMES["clk"] else ([], list(inputs))
        if self.rng.random() < 0.3:
            self.rng.shuffle(free)
        return (*fixed, *free, *outputs)


def given(name: str, width: int = 1) -> Port:
    return Port(name, "input", width)


def wire(name: str, width: int = 1) -> Port:
    return Port(name, "output", width)


def reg(name: str, width: int = 1) -> Port:
    return Port(name, "output", width, reg=True)


def resets(reset: Reset | None) -> list[Port]:
    return [given(reset.name)] if reset else []


def vector(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def literal(width: int, value: int) -> str:
    if width == 1:
        return f"1'b{value}"
    return f"{width}'d{value}" if value < 16 else f"{width}'h{value:x}"


def decimal(width: int, value: int) -> str:
    """A literal whose value is a count, so that code and description show the same digits."""
    return f"{width}'d{value}"


def number(value: int) -> str:
    """A value as descriptions write it, in the base `literal` uses."""
    return str(value) if value < 16 else f"0x{value:x}"


def bits(width: int) -> str:
    """'an 8-bit', 'a 4-bit'."""
    article = "an" if width in (8, 11, 18) else "a"
    return f"{article} {width}-bit"


def ones(width: int) -> int:
    return (1 << width) - 1


def address_bits(count: int) -> int:
    """Bits needed to tell `count` things apart."""
    return max(1, (count - 1).bit_length())


def chain(branches: list[tuple[str, list[str]]]) -> list[str]:
    """An if / else if / else chain; an empty condition is the last `else`, or no `if` at all when it comes first."""
    lines: list[str] = []
    for position, (condition, statements) in enumerate(branches):
        if not condition and position == 0:
            return list(statements)
        head = ("else " if position else "") + (f"if ({condition})" if condition else "")
        many = len(statements) > 1
        lines.append(head.strip() + (" begin" if many else ""))
        lines += [f"  {s}" for s in statements] + (["end"] if many else [])
    return lines


def clocked(clk: str, reset: Reset | None, cleared: list[str], branches: list[tuple[str, list[str]]]) -> list[str]:
    """A clocked block: the reset first, then the branches in order of priority."""
    if reset:
        branches = [(reset.test, cleared), *branches]
    event = clk if " " in clk else f"posedge {clk}"
    return [f"always @({event}{reset.event if reset else ''}) begin", *(f"  {s}" for s in chain(branches)), "end"]


def reset_says(pick: Pick, reset: Reset | None, target: str, value: str) -> list[str]:
    if reset is None:
        return []
    level, time = (
        ("active-low" if reset.low else "active-high"),
        ("asynchronous" if reset.asynchronous else "synchronous"),
    )
    kind, r = pick.one(f"{level} {time}", f"{time} {level}"), reset.name
    an = "an" if kind[0] == "a" else "a"
    becomes, is_set = ("become", "are set") if " and " in target else ("becomes", "is set")
    when = "immediately" if reset.asynchronous else "at the clock edge"
    return [
        pick.one(
            f"{r} is {an} {kind} reset that sets {target} to {value}.",
            f"The {r} input is {an} {kind} reset and sets {target} to {value}.",
            f"Reset is {kind}: when {r} is {reset.active}, {target} {is_set} to {value} {when}.",
            f"When the {kind} reset {r} is asserted, {target} {becomes} {value}.",
            f"The reset value of {target} is {value}; the reset {r} is {kind}.",
        )
    ]


def reset_thinks(pick: Pick, reset: Reset | None) -> list[str]:
    if reset is None:
        return []
    level = "low" if reset.low else "high"
    if reset.asynchronous:
        return [
            pick.one(
                f"The reset is asynchronous and active {level}, so it joins the sensitivity list.",
                f"An asynchronous active-{level} reset needs{reset.event.removeprefix(' or')} in the sensitivity list.",
            )
        ]
    return [
        pick.one(
            f"The reset is synchronous and active {level}, so only the clock is in the sensitivity list.",
            f"A synchronous active-{level} reset is tested as {reset.test} inside the clocked block.",
        )
    ]


def clock_says(pick: Pick, clk: str) -> str:
    return pick.one(
        "Assume all sequential logic is triggered on the positive edge of the clock.",
        f"All flip-flops are triggered by the positive edge of {clk}.",
        f"The state is updated on the rising edge of {clk}.",
        f"Everything is clocked by the positive edge of {clk}.",
    )


def enable_says(pick: Pick, enable: str, level: int, target: str, reset: Reset | None) -> list[str]:
    """What an enable does to `target`; a reset always wins over it."""
    says = pick.one(
        f"When {enable} is {1 - level}, {target} keeps its value.",
        f"{target} changes only when {enable} is {level}, and otherwise holds its value.",
        f"If {enable} is {1 - level}, {target} does not change.",
        f"{enable} is an active-{'high' if level else 'low'} enable; without it {target} holds.",
    )
    return [says, f"Reset has priority over {enable}."] if reset else [says]
