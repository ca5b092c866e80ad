"""Families that count inside: periodic pulses, clock dividers, accumulators."""

from recipes.starter.names import RESETS
from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import (
    Pick,
    address_bits,
    bits,
    clock_says,
    clocked,
    decimal,
    enable_says,
    given,
    literal,
    reg,
    reset_says,
    reset_thinks,
    resets,
    vector,
    wire,
)


def tick(pick: Pick, period: int, reset: str, output: str, enable: str) -> Problem:
    """A pulse in every `period`-th cycle, or a clock divider that toggles every `period` cycles."""
    clk, r = pick.name("clk"), pick.reset(reset)
    en = pick.name("enable") if enable != "none" else ""
    width, pulse = address_bits(period), output == "pulse"
    y = pick.name("pulse") if pulse else pick.one("clk_out", "clk_div", "slow_clk", "divided", "tog")
    end = f"count == {decimal(width, period - 1)}"
    wrap, step = f"count <= {literal(width, 0)};", "count <= count + 1;"
    if pulse:
        lead = pick.one(
            f"output a pulse on {y} every {period} clock cycles",
            f"generate a pulse of one cycle on {y} once every {period} clock cycles",
            f"implement a timer whose output {y} is 1 for one cycle out of {period}",
        )
        says = pick.one(
            f"An internal counter runs from 0 to {period - 1}; {y} is 1 while it is {period - 1}.",
            f"Count from 0 to {period - 1} and repeat; {y} is 1 when the count is {period - 1}.",
        )
    else:
        lead = pick.one(
            f"divide the clock: {y} toggles once every {period} clock cycles",
            f"implement a clock divider whose output {y} toggles every {period} cycles",
            f"generate a square wave on {y} that changes every {period} clock cycles",
        )
        says = pick.one(
            f"An internal counter runs from 0 to {period - 1}; {y} is inverted when it goes back to 0.",
            f"Count from 0 to {period - 1} and repeat; at {period - 1} invert {y}.",
        )
    details = [says]
    if en:
        details.append(
            pick.one(
                f"The counter advances only when {en} is 1.",
                f"When {en} is 0, the counter{' holds' if pulse else f' and {y} hold'}.",
            )
        )
    details += [*reset_says(pick, r, "the counter" + ("" if pulse else f" and {y}"), "0"), clock_says(pick, clk)]
    cleared = [wrap] + ([] if pulse else [f"{y} <= 1'b0;"])
    turn = [wrap] + ([] if pulse else [f"{y} <= ~{y};"])
    body = clocked(clk, r, cleared, [(f"{en} && {end}" if en else end, turn), (en, [step])])
    return Problem(
        name=pick.one(f"tick_{period}", f"pulse_every_{period}", f"timer_{period}")
        if pulse
        else pick.one(f"clk_div_{period}", f"clock_divider_{period}", f"toggle_every_{period}"),
        ports=pick.ports([given(clk), *resets(r), *([given(en)] if en else [])], [wire(y) if pulse else reg(y)]),
        lead=lead,
        details=tuple(details),
        thought=(f"Counting to {period - 1} needs {width} bits.", *reset_thinks(pick, r)),
        body=(f"reg {vector(width)}count;", "", *body, *(("", f"assign {y} = {end};") if pulse else ())),
        clock=clk,
        reset=r,
        hold=((en, 1),) if en else (),
        run=2 * period + 20,
    )


def accumulator(pick: Pick, width: int, extra: int, op: str, reset: str, control: str) -> Problem:
    clk, r = pick.name("clk"), pick.reset(reset)
    d, q = pick.name("data"), pick.one("acc", "total", "sum", "accum")
    c = {"enable": pick.name("enable"), "clear": pick.one("clear_acc", "zero", "restart", "start"), "none": ""}[control]
    size = width + extra
    sign, verb, way = ("+", "adds", "added to") if op == "add" else ("-", "subtracts", "subtracted from")
    lead = pick.one(
        f"implement {bits(size)} accumulator {q} that {verb} the {width}-bit input {d} in every cycle",
        f"accumulate: in every clock cycle {d} is {way} the {size}-bit register {q}",
        f"implement an accumulator with the input {d} and the output {q}; {d} is {way} {q} in each cycle",
    )
    details = [
        pick.one(f"{d} is unsigned.", f"Treat {d} as unsigned."),
        pick.one(f"{q} wraps around.", f"The result is kept modulo 2^{size}."),
    ]
    branches = [("", [f"{q} <= {q} {sign} {d};"])]
    if control == "enable":
        details += enable_says(pick, c, 1, q, r)
        branches = [(c, branches[0][1])]
    if control == "clear":
        details.append(
            pick.one(
                f"When {c} is 1, {q} is set to 0 at the clock edge instead.",
                f"{c} synchronously clears {q} to 0 and has priority over accumulating.",
            )
        )
        branches = [(c, [f"{q} <= {literal(size, 0)};"]), *branches]
    details += [*reset_says(pick, r, q, "0"), clock_says(pick, clk)]
    return Problem(
        name=pick.one(f"accumulator_{size}", f"acc_{op}_{size}", f"accum_{width}_{size}"),
        ports=pick.ports([given(clk), *resets(r), *([given(c)] if c else []), given(d, width)], [reg(q, size)]),
        lead=lead,
        details=tuple(details),
        thought=(f"The next value is {q} {sign} {d}.", *reset_thinks(pick, r)),
        body=tuple(clocked(clk, r, [f"{q} <= {literal(size, 0)};"], branches)),
        clock=clk,
        reset=r,
        hold=((c, 1 if control == "enable" else 0),) if c else (),
    )


PERIODS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 20, 24, 25, 30, 32, 50, 60, 100)


FAMILIES = (
    Family("tick", tick, grid(period=PERIODS, reset=RESETS, output=("pulse", "toggle"), enable=("none", "high"))),
    Family(
        "accumulator",
        accumulator,
        grid(
            width=(2, 4, 5, 6, 8, 12, 16),
            extra=(0, 2, 4),
            op=("add", "subtract"),
            reset=RESETS,
            control=("none", "enable", "clear"),
        ),
    ),
)
