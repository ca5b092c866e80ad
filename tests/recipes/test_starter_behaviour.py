"""References against models in plain Python: the code does what its family and parameters say."""

import re
from collections.abc import Callable, Sequence
from random import Random

import pytest

from recipes.starter.problem import Params, Problem
from recipes.starter.split import FAMILIES

BY_NAME = {family.name: family for family in FAMILIES}


def vectors(problem: Problem, count: int) -> tuple[list[str], list[list[int]]]:
    """The inputs but clock and reset in alphabetical order, and random values for them, extremes included."""
    rng = Random("vectors")
    apart = {problem.clock, problem.reset.name if problem.reset else ""}
    ports = sorted((p for p in problem.ports if p.direction == "input" and p.name not in apart), key=lambda p: p.name)
    tops = [(1 << p.width) - 1 for p in ports]
    values = [[rng.choice((0, top, rng.randint(0, top), rng.randint(0, top))) for top in tops] for _ in range(count)]
    return [p.name for p in ports], values


def bench(problem: Problem, names: Sequence[str], values: list[list[int]]) -> str:
    """Apply one vector per clock cycle after a reset and print the outputs before the next rising edge."""
    outputs = [p.name for p in problem.ports if p.direction == "output"]
    pins = ", ".join(f".{p.name}({p.name})" for p in problem.ports)
    declared = [f"{'reg' if p.direction == 'input' else 'wire'} [{p.width - 1}:0] {p.name};" for p in problem.ports]
    steps, tick = [], ""
    if problem.clock:
        tick = f" {problem.clock} = 1; #1 {problem.clock} = 0;"
        steps += [f"{problem.clock} = 0;", *(f"{n} = 0;" for n in names)]
    if problem.reset:
        r = problem.reset
        steps += [f"{r.name} = {1 - r.active}; #1 {r.name} = {r.active}; #1{tick} {r.name} = {1 - r.active};"]
    show = f'$display("{" ".join("%0d" for _ in outputs)}", {", ".join(outputs)});'
    for row in values:
        assigned = " ".join(f"{n} = {v};" for n, v in zip(names, row, strict=True))
        steps.append(f"{assigned} #1 {show}{tick}")
    body = "\n".join((*declared, f"Dut dut ({pins});", "initial begin", *steps, "end"))
    return f"module tb;\n{body}\nendmodule\n"


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


COMBINATIONAL: dict[str, Callable[..., int]] = {
    "popcount": lambda p, a: a.bit_count() if p["of"] == "ones" else p["width"] - a.bit_count(),
    "unary": lambda p, a: (
        {"complement": ~a, "negate": -a, "absolute": abs(signed(a, p["width"]))}[p["kind"]] % (1 << p["width"])
    ),
    "parity": lambda p, a: (
        lambda bit: {"alone": bit, "front": bit << p["width"] | a, "back": a << 1 | bit}[p["whole"]]
    )((a.bit_count() + (p["kind"] == "odd")) % 2),
    "gray": lambda p, a: (
        a ^ a >> 1 if p["kind"] == "to_gray" else next(b for b in range(1 << p["width"]) if b ^ b >> 1 == a)
    ),
    "extend": lambda p, a: (signed(a, p["width"]) if p["kind"] == "sign" else a) % (1 << p["width"] + p["extra"]),
    "reorder": lambda p, a: int(
        "".join(reversed(re.findall("." * p["unit"], format(a, f"0{p['unit'] * p['count']}b")))), 2
    ),
    "offset": lambda p, a: (a + (p["value"] if p["op"] == "add" else -p["value"])) % (1 << p["width"]),
    "threshold": lambda p, a: int(
        {"equal": a == p["value"], "different": a != p["value"], "less": a < p["value"]}.get(
            p["relation"], {"at_most": a <= p["value"], "greater": a > p["value"]}.get(p["relation"], a >= p["value"])
        )
    ),
    "shift": lambda p, a: (
        lambda w, n: (
            {
                "left": a << n,
                "right": a >> n,
                "arithmetic": signed(a, w) >> n,
                "rotate_left": a << n | a >> (w - n),
                "rotate_right": a >> n | a << (w - n),
            }[p["kind"]]
            % (1 << w)
        )
    )(p["width"], p["amount"]),
    "extreme": lambda p, a, b: {"min": min, "max": max}[p["op"]](
        a, b, key=lambda v: signed(v, p["width"]) if p["kind"] == "signed" else v
    ),
    "product": lambda p, a, b: (
        (signed(a, p["first"]) * signed(b, p["second"]) if p["kind"] == "signed" else a * b)
        % (1 << p["first"] + p["second"])
    ),
    "distance": lambda p, a, b: {
        "absolute": abs(a - b),
        "saturating_sub": max(0, a - b),
        "saturating_add": min(a + b, (1 << p["width"]) - 1),
    }[p["kind"]],
    "concat": lambda p, a, b: a << p["second"] | b if p["order"] == "first_high" else b << p["first"] | a,
    "minterms": lambda p, *bits: p["function"] >> int("".join(map(str, bits)), 2) & 1,
}


def counted(p: dict, steps: int) -> list[int]:
    sign = 1 if p["direction"] == "up" else -1
    start = {"zero": 0, "one": 1, "ones": -1}[p["value"]]
    return [(start + sign * i) % (1 << p["width"]) for i in range(steps)]


def modulo(p: dict, steps: int) -> list[int]:
    inside = list(range(p["first"], p["first"] + p["count"]))
    order = inside if p["direction"] == "up" else inside[::-1]
    return [order[i % p["count"]] for i in range(steps)]


def rings(p: dict, steps: int) -> list[int]:
    bits, found = ("0" * (p["width"] - 1) + "1" if p["kind"] == "ring" else "0" * p["width"]), []
    flip = (lambda b: b) if p["kind"] == "ring" else (lambda b: "10"[int(b)])
    for _ in range(steps):
        found.append(int(bits, 2))
        bits = bits[1:] + flip(bits[0]) if p["direction"] == "left" else flip(bits[-1]) + bits[:-1]
    return found


def ticks(p: dict, steps: int) -> list[int]:
    n = p["period"]
    return [int(i % n == n - 1) if p["output"] == "pulse" else i // n % 2 for i in range(steps)]


FREE_RUNNING = {"counter": counted, "modulo": modulo, "ring": rings, "tick": ticks}


def recognized(p: dict, bits: list[int]) -> list[int]:
    seen, found = "", []
    for bit in bits:
        seen += str(bit)
        hit = seen.endswith(p["pattern"])
        found.append(int(hit))
        seen = "" if hit and p["overlap"] == "no" else seen
    return found if p["output"] == "direct" else [0, *found[:-1]]


def stepped(p: dict, bits: list[int]) -> list[int]:
    state, found = 0, []
    for bit in bits:
        at = 2 * state + bit
        found.append(int(p["outputs"][state if p["kind"] == "moore" else at]))
        state = "ABCD".index(p["successors"][at])
    return found


def edges(p: dict, values: list[int]) -> list[int]:
    before, found = 0, []
    for value in values:
        found.append({"rising": value & ~before, "falling": ~value & before, "any": value ^ before}[p["edge"]])
        before = value
    return found if p["output"] == "direct" else [0, *found[:-1]]


ONE_INPUT = {"sequence": recognized, "machine": stepped, "edge_detector": edges}


def sample(name: str) -> list[Params]:
    space = BY_NAME[name].space
    plain = [p for p in space if dict(p).get("enable", "none") == "none" and dict(p).get("reset") != "none"]
    small = [p for p in plain if name != "gray" or int(dict(p)["width"]) <= 8]
    return Random(name).sample(small, 6)


@pytest.mark.parametrize("name", [*COMBINATIONAL, *FREE_RUNNING, *ONE_INPUT])
def test_reference_equals_its_model(name: str, simulate: Callable[..., str | None]) -> None:
    for number, params in enumerate(sample(name)):
        problem = BY_NAME[name].build(params, Random(number))
        p = dict(params)
        names, values = vectors(problem, 130)
        if name in COMBINATIONAL:
            expected = [COMBINATIONAL[name](p, *row) for row in values]
        elif name in FREE_RUNNING:
            expected = FREE_RUNNING[name](p, len(values))
        else:
            expected = ONE_INPUT[name](p, [row[0] for row in values])
        printed = simulate(f"model{number}", test=bench(problem, names, values), dut=problem.code("Dut"))
        assert printed is not None, problem.code("Dut")
        assert [int(line) for line in printed.split()] == expected, problem
