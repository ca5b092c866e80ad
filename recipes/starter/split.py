"""Which problems are held out: a stable hash of (family, params) keeps about one in eight out of training.

Only combinations are held out: every value of every parameter remains in training, and so does every family
whose space is too small to split. Code that equals a held-out problem's up to names is kept out of training too.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from random import Random

from recipes.starter.families import (
    arithmetic,
    codes,
    comparisons,
    counters,
    gates,
    machines,
    registers,
    selects,
    shift_registers,
    shifts,
    timers,
    wiring,
)
from recipes.starter.problem import MAX_RUN, Family, Params, Problem, fingerprint

FAMILIES: tuple[Family, ...] = tuple(
    family
    for group in (
        gates,
        codes,
        wiring,
        selects,
        comparisons,
        arithmetic,
        shifts,
        registers,
        shift_registers,
        counters,
        timers,
        machines,
    )
    for family in group.FAMILIES
)
HELD_OUT_SHARE = 8
BENCHMARK_SIZE = 60


def _rank(family: str, params: Params) -> int:
    text = family + "".join(f" {name}={value}" for name, value in params)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


@cache
def held_out_params(family: Family) -> tuple[Params, ...]:
    """The held-out part of a family's space, in an order that does not depend on how the space is listed."""
    if not family.splits:
        return ()
    chosen = sorted(
        (p for p in family.space if _rank(family.name, p) % HELD_OUT_SHARE == 0), key=lambda p: _rank(family.name, p)
    )
    left = {p for p in family.space if p not in set(chosen)}
    seen = {item for p in left for item in p}
    return tuple(p for p in chosen if seen.issuperset(item for item in p if item[0] not in family.composed))


@cache
def training_params(family: Family) -> tuple[Params, ...]:
    kept_out = set(held_out_params(family))
    return tuple(p for p in family.space if p not in kept_out)


@cache
def _held_out_prints() -> frozenset[str]:
    return frozenset(
        fingerprint(family.build(params, Random(f"print {family.name}")))
        for family in FAMILIES
        for params in held_out_params(family)
    )


def train_problems(seed: int, purpose: str = "train") -> Iterator[Problem]:
    """An endless stream over the training side, every family once a round, in random order."""
    rng = Random(f"{purpose} {seed}")
    while True:
        for family in rng.sample(FAMILIES, len(FAMILIES)):
            problem = family.build(rng.choice(training_params(family)), rng)
            if fingerprint(problem) not in _held_out_prints():
                yield problem


@cache
def _held_out() -> tuple[Problem, ...]:
    problems: list[Problem] = []
    prints: set[str] = set()
    by_size = sorted(FAMILIES, key=lambda family: -len(held_out_params(family)))
    for turn in range(len(held_out_params(by_size[0]))):
        for family in by_size:
            params = held_out_params(family)
            if turn < len(params) and len(problems) < BENCHMARK_SIZE:
                problem = family.build(params[turn], Random(f"held out {family.name} {turn}"))
                # A counter too long to wrap within a testbench would be judged on part of its behaviour.
                if problem.run <= MAX_RUN and fingerprint(problem) not in prints:
                    prints.add(fingerprint(problem))
                    problems.append(problem)
    return tuple(problems)


def held_out() -> list[Problem]:
    """The benchmark's problems, about equally many of every family."""
    return list(_held_out())
