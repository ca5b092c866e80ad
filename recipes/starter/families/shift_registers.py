"""Families that keep past inputs: delays, shift registers, ring and Johnson counters, edge detectors."""

from recipes.starter.names import RESETS
from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import (
    Pick,
    bits,
    clock_says,
    clocked,
    given,
    literal,
    reg,
    reset_says,
    reset_thinks,
    resets,
    vector,
    wire,
)


def delay(pick: Pick, width: int, cycles: int, reset: str) -> Problem:
    clk, r = pick.name("clk"), pick.reset(reset)
    d, q = pick.name("data"), pick.name("stored")
    stages = [f"s{i}" for i in range(1, cycles)]
    chain = [*stages, q]
    lead = pick.one(
        f"delay {d} by {cycles} clock cycles and output it on {q}",
        f"implement a pipeline of {cycles} registers from {d} to {q}",
        f"output {d} on {q} after {cycles} clock cycles",
        f"pass the {width}-bit input {d} through {cycles} registers to {q}",
    )
    return Problem(
        name=pick.one(f"delay{cycles}_{width}", f"pipe_{cycles}x{width}", f"delay_line_{cycles}_{width}"),
        ports=pick.ports([given(clk), *resets(r), given(d, width)], [reg(q, width)]),
        lead=lead,
        details=(*reset_says(pick, r, "every register", "0"), clock_says(pick, clk)),
        thought=(f"A delay of {cycles} needs {cycles} registers in a row.", *reset_thinks(pick, r)),
        body=(
            f"reg {vector(width)}{', '.join(stages)};",
            "",
            *clocked(
                clk,
                r,
                [f"{s} <= {literal(width, 0)};" for s in chain],
                [("", [f"{s} <= {before};" for before, s in zip([d, *stages], chain, strict=True)])],
            ),
        ),
        clock=clk,
        reset=r,
    )


def shift_register(pick: Pick, width: int, direction: str, reset: str, enable: str, load: str) -> Problem:
    clk, r = pick.name("clk"), pick.reset(reset)
    si, q = pick.name("serial"), pick.name("stored")
    en = pick.name("enable") if enable == "high" else ""
    ld, d = (pick.name("load"), pick.name("data")) if load == "load" else ("", "")
    left = direction == "left"
    moved = f"{{{q}[{width - 2}:0], {si}}}" if left else f"{{{si}, {q}[{width - 1}:1]}}"
    lead = pick.one(
        f"implement {bits(width)} shift register {q} that shifts {direction}",
        f"implement {bits(width)} {direction} shift register with the output {q}",
        f"shift the bit {si} into {bits(width)} register {q}, which shifts {direction}",
    )
    entry = f"{q}[0]" if left else f"{q}[{width - 1}]"
    details = [
        pick.one(
            f"In every shift {si} enters at {entry}.",
            f"The serial input {si} goes into {entry}.",
            f"{entry} takes {si} and the other bits move one place to the {direction}.",
            f"{si} is shifted into {entry}.",
        )
    ]
    if en:
        details.append(
            pick.one(
                f"It shifts only when {en} is 1.",
                f"{en} enables shifting; when it is 0, {q} holds.",
                f"Without {en} the register holds.",
            )
        )
    if ld:
        details.append(
            pick.one(
                f"When {ld} is 1, {q} is loaded with {d} instead of shifting.",
                f"{ld} loads {d} into {q} and has priority over shifting.",
            )
        )
    details += [*reset_says(pick, r, q, "0"), clock_says(pick, clk)]
    branches = ([(ld, [f"{q} <= {d};"])] if ld else []) + [(en, [f"{q} <= {moved};"])]
    inputs = [given(clk), *resets(r), *([given(ld)] if ld else []), *([given(en)] if en else []), given(si)]
    return Problem(
        name=pick.one(f"shift_reg_{width}", f"shift_{direction}_{width}", f"sr{width}_{direction}"),
        ports=pick.ports([*inputs, *([given(d, width)] if ld else [])], [reg(q, width)]),
        lead=lead,
        details=tuple(details),
        thought=(f"A {direction} shift is {moved}.", *reset_thinks(pick, r)),
        body=tuple(clocked(clk, r, [f"{q} <= {literal(width, 0)};"], branches)),
        clock=clk,
        reset=r,
        hold=(*(((en, 1),) if en else ()), *(((ld, 0),) if ld else ())),
    )


def ring(pick: Pick, kind: str, width: int, direction: str, reset: str) -> Problem:
    """Registers fed by themselves: a ring counter starts with a single one, a Johnson counter with zeros."""
    clk, r = pick.name("clk"), pick.reset(reset)
    q = pick.name("count")
    tilde, start = ("", 1) if kind == "ring" else ("~", 0)
    left = direction == "left"
    moved = f"{{{q}[{width - 2}:0], {tilde}{q}[{width - 1}]}}" if left else f"{{{tilde}{q}[0], {q}[{width - 1}:1]}}"
    out_bit, in_bit = (f"{q}[{width - 1}]", f"{q}[0]") if left else (f"{q}[0]", f"{q}[{width - 1}]")
    word = "ring" if kind == "ring" else "Johnson"
    lead = pick.one(
        f"implement {bits(width)} {word} counter {q} that shifts {direction}",
        f"implement a {word} counter with {width} bits, shifting {direction}, on the output {q}",
    )
    detail = (
        pick.one(f"In every cycle {out_bit} moves to {in_bit}.", f"{out_bit} is fed back to {in_bit}.")
        if kind == "ring"
        else pick.one(
            f"The complement of {out_bit} is fed back to {in_bit}.",
            f"In every cycle the inverted {out_bit} enters at {in_bit}.",
        )
    )
    return Problem(
        name=pick.one(f"{kind}_counter_{width}", f"{kind}_cnt{width}", f"{kind}_{direction}_{width}"),
        ports=pick.ports([given(clk), *resets(r)], [reg(q, width)]),
        lead=lead,
        details=(detail, *reset_says(pick, r, q, str(start)), clock_says(pick, clk)),
        thought=(f"The next value is {moved}.", *reset_thinks(pick, r)),
        body=tuple(clocked(clk, r, [f"{q} <= {literal(width, start)};"], [("", [f"{q} <= {moved};"])])),
        clock=clk,
        reset=r,
    )


def edge_detector(pick: Pick, width: int, edge: str, output: str, reset: str) -> Problem:
    clk, r = pick.name("clk"), pick.reset(reset)
    a, y = pick.name("signal"), pick.name("pulse")
    seen = {"rising": f"{a} & ~prev", "falling": f"~{a} & prev", "any": f"{a} ^ prev"}[edge]
    says = {"rising": "a rising edge (0 to 1)", "falling": "a falling edge (1 to 0)", "any": "any edge (a change)"}[
        edge
    ]
    of = a if width == 1 else pick.one(f"each bit of {a}", f"each of the {width} bits of {a}")
    lead = pick.one(
        f"detect {says} of {of} and report it on {y}",
        f"output 1 on {y} after {says} of {of}",
        f"implement a detector for {says} of {of} with the output {y}",
    )
    registered = output == "registered"
    details = [
        *([f"Bit i of {y} belongs to bit i of {a}."] if width > 1 else []),
        pick.one(
            f"Compare {a} with its value at the previous clock edge.",
            f"The value of {a} at the last clock edge is kept in a register.",
        ),
        pick.one(
            f"{y} is registered: it is 1 for one cycle after the edge was sampled.",
            f"The output {y} is a register updated with the result.",
        )
        if registered
        else pick.one(
            f"{y} is combinational: it compares the present {a} with the stored one.", f"{y} is not registered."
        ),
        *reset_says(pick, r, "the stored value" + (f" and {y}" if registered else ""), "0"),
        clock_says(pick, clk),
    ]
    zero = literal(width, 0)
    if registered:
        body = clocked(clk, r, [f"prev <= {zero};", f"{y} <= {zero};"], [("", [f"prev <= {a};", f"{y} <= {seen};"])])
    else:
        body = [*clocked(clk, r, [f"prev <= {zero};"], [("", [f"prev <= {a};"])]), "", f"assign {y} = {seen};"]
    return Problem(
        name=pick.one(f"{edge}_edge_{width}", f"edge_{edge}{width}", f"{edge}_edge_detect_{width}"),
        ports=pick.ports([given(clk), *resets(r), given(a, width)], [reg(y, width) if registered else wire(y, width)]),
        lead=lead,
        details=tuple(details),
        thought=(f"Keep the last {a} in prev; the edge is {seen}.", *reset_thinks(pick, r)),
        body=(f"reg {vector(width)}prev;", "", *body),
        clock=clk,
        reset=r,
    )


STYLES = ("none", *RESETS)


FAMILIES = (
    Family("delay", delay, grid(width=(1, 2, 4, 5, 8, 12, 16), cycles=(2, 3, 4, 5), reset=STYLES)),
    Family(
        "shift_register",
        shift_register,
        grid(
            width=(3, 4, 5, 6, 7, 8, 10, 12, 16),
            direction=("left", "right"),
            reset=STYLES,
            enable=("none", "high"),
            load=("none", "load"),
        ),
    ),
    Family(
        "ring",
        ring,
        grid(kind=("ring", "johnson"), width=(3, 4, 5, 6, 7, 8, 10, 12, 16), direction=("left", "right"), reset=RESETS),
    ),
    Family(
        "edge_detector",
        edge_detector,
        grid(
            width=(1, 2, 4, 8, 16, 32), edge=("rising", "falling", "any"), output=("direct", "registered"), reset=STYLES
        ),
    ),
)
