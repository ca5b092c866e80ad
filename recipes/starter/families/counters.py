"""Families that count: up, down and modulo counters, loads, saturation, dividers, periodic pulses, accumulators."""

from recipes.starter.names import RESETS
from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import (
    Pick,
    bits,
    clock_says,
    clocked,
    decimal,
    enable_says,
    given,
    literal,
    number,
    ones,
    reg,
    reset_says,
    reset_thinks,
    resets,
)


def counter(pick: Pick, direction: str, width: int, reset: str, enable: str, value: str) -> Problem:
    clk, r = pick.name("clk"), pick.reset(reset)
    q = pick.name("count")
    en = pick.name("enable") if enable != "none" else ""
    level = 1 if enable == "high" else 0
    start = {"zero": 0, "one": 1, "ones": ones(width)}[value]
    sign = "+" if direction == "up" else "-"
    lead = pick.one(
        f"implement {bits(width)} counter {q} that counts {direction}",
        f"implement {bits(width)} {direction} counter with the output {q}",
        f"count {direction} by one in every clock cycle on the {width}-bit output {q}",
        f"be {bits(width)} {direction} counter with the output {q}",
    )
    wrap = (
        pick.one(f"After {number(ones(width))} it wraps around to 0.", f"It wraps from {number(ones(width))} to 0.")
        if direction == "up"
        else pick.one(
            f"After 0 it wraps around to {number(ones(width))}.", f"It wraps from 0 to {number(ones(width))}."
        )
    )
    details = [
        *reset_says(pick, r, q, number(start)),
        *(enable_says(pick, en, level, q, r) if en else []),
        wrap,
        clock_says(pick, clk),
    ]
    short = "up" if direction == "up" else "down"
    return Problem(
        name=pick.one(
            f"cnt_{short}_{width}", f"{short}_counter_{width}", f"counter_{short}{width}", f"counter{width}_{short}"
        ),
        ports=pick.ports([given(clk), *resets(r), *([given(en)] if en else [])], [reg(q, width)]),
        lead=lead,
        details=tuple(details),
        thought=(f"The next value is {q} {sign} 1; {width} bits wrap by themselves.", *reset_thinks(pick, r)),
        body=tuple(
            clocked(
                clk,
                r,
                [f"{q} <= {literal(width, start)};"],
                [((en if level else f"!{en}") if en else "", [f"{q} <= {q} {sign} 1;"])],
            )
        ),
        clock=clk,
        reset=r,
        hold=((en, level),) if en else (),
        run=ones(width) + 10,
    )


def modulo(pick: Pick, direction: str, count: int, first: int, reset: str, enable: str) -> Problem:
    """Counts through `count` values from `first`, up or down."""
    clk, r = pick.name("clk"), pick.reset(reset)
    q = pick.name("count")
    en = pick.name("enable") if enable != "none" else ""
    last = first + count - 1
    width = last.bit_length()
    begin, end, sign = (first, last, "+") if direction == "up" else (last, first, "-")
    lead = pick.one(
        f"implement a modulo-{count} counter {q} that counts {direction} from {begin} to {end}",
        f"count {direction} from {begin} to {end} on the output {q}, and then start again at {begin}",
        f"implement a counter {q} that counts {direction} from {begin} through {end} and repeats",
    )
    details = [
        pick.one(f"After {end} comes {begin}.", f"{end} is followed by {begin}.", f"It wraps from {end} to {begin}.")
    ]
    details += [
        *reset_says(pick, r, q, str(begin)),
        *(enable_says(pick, en, 1, q, r) if en else []),
        clock_says(pick, clk),
    ]
    # A value outside the range can only be an X, so equality is enough to find the end.
    wrap, step = f"{q} <= {decimal(width, begin)};", f"{q} <= {q} {sign} 1;"
    at_end = f"{q} == {decimal(width, end)}"
    branches = [(f"{en} && {at_end}" if en else at_end, [wrap]), (en, [step])]
    return Problem(
        name=pick.one(f"mod{count}_{direction}", f"count_mod_{count}", f"mod_{count}_counter"),
        ports=pick.ports([given(clk), *resets(r), *([given(en)] if en else [])], [reg(q, width)]),
        lead=lead,
        details=tuple(details),
        thought=(f"Values up to {last} need {width} bits. At {end} it goes back to {begin}.", *reset_thinks(pick, r)),
        body=tuple(clocked(clk, r, [wrap], branches)),
        clock=clk,
        reset=r,
        hold=((en, 1),) if en else (),
        run=2 * count + 6,
    )


def load_counter(pick: Pick, direction: str, width: int, reset: str, enable: str) -> Problem:
    clk, r = pick.name("clk"), pick.reset(reset)
    q, ld, d = pick.name("count"), pick.name("load"), pick.name("data")
    en = pick.name("enable") if enable != "none" else ""
    sign = "+" if direction == "up" else "-"
    lead = pick.one(
        f"implement {bits(width)} {direction} counter {q} with a synchronous load",
        f"implement a loadable {width}-bit counter {q} that counts {direction}",
        f"count {direction} on the {width}-bit output {q}, with a parallel load",
    )
    details = [
        pick.one(
            f"When {ld} is 1, {q} is set to {d} at the clock edge instead of counting.",
            f"If {ld} is 1 the counter loads {d}; this has priority over counting.",
            f"{ld} loads {d} into {q} and has priority over counting.",
        )
    ]
    if en:
        details.append(
            pick.one(
                f"It counts only when {en} is 1.",
                f"{en} enables counting, but not loading.",
                f"With {en}=0 and {ld}=0, {q} holds.",
            )
        )
    details += [*reset_says(pick, r, q, "0"), clock_says(pick, clk)]
    return Problem(
        name=pick.one(f"load_counter_{width}", f"cnt_{direction}_load{width}", f"counter_ld_{width}"),
        ports=pick.ports(
            [given(clk), *resets(r), given(ld), *([given(en)] if en else []), given(d, width)], [reg(q, width)]
        ),
        lead=lead,
        details=tuple(details),
        thought=(f"The order is reset, {ld}, count.", *reset_thinks(pick, r)),
        body=tuple(
            clocked(clk, r, [f"{q} <= {literal(width, 0)};"], [(ld, [f"{q} <= {d};"]), (en, [f"{q} <= {q} {sign} 1;"])])
        ),
        clock=clk,
        reset=r,
        hold=((ld, 0), *(((en, 1),) if en else ())),
        run=min(ones(width), 60) + 10,
    )


def updown(pick: Pick, width: int, reset: str, level: int, limits: str, enable: str) -> Problem:
    """Counts up when the direction input equals `level`; at the limits it wraps or stays."""
    clk, r = pick.name("clk"), pick.reset(reset)
    q, up = pick.name("count"), pick.name("direction")
    en = pick.name("enable") if enable != "none" else ""
    top = decimal(width, ones(width))
    condition = up if level else f"!{up}"
    lead = pick.one(
        f"implement {bits(width)} up/down counter {q}" + (" that saturates" if limits == "saturate" else ""),
        f"implement {bits(width)} counter {q} with the direction input {up}"
        + (", saturating" if limits == "saturate" else ""),
        f"count up or down on the {width}-bit output {q}" + (" with saturation" if limits == "saturate" else ""),
    )
    details = [
        pick.one(
            f"It counts up when {up} is {level} and down when {up} is {1 - level}.",
            f"{up}={level} means up and {up}={1 - level} means down.",
            f"When {up} is {level}, {q} is incremented; when it is {1 - level}, {q} is decremented.",
        ),
        *(enable_says(pick, en, 1, q, r) if en else []),
        pick.one(
            f"It stays at {ones(width)} and at 0 and does not wrap.",
            f"It stops at {ones(width)} when counting up and at 0 when counting down.",
        )
        if limits == "saturate"
        else pick.one("It wraps around in both directions.", f"It wraps between 0 and {ones(width)}."),
        *reset_says(pick, r, q, "0"),
        clock_says(pick, clk),
    ]
    if limits == "saturate":
        inner = [
            (f"{condition} && {q} != {top}", [f"{q} <= {q} + 1;"]),
            (f"{'!' + up if level else up} && {q} != {decimal(width, 0)}", [f"{q} <= {q} - 1;"]),
        ]
    else:
        inner = [(condition, [f"{q} <= {q} + 1;"]), ("", [f"{q} <= {q} - 1;"])]
    if en:
        inner = [(f"{en} && {test}" if test else en, steps) for test, steps in inner]
    thought = "Stop at both ends." if limits == "saturate" else f"Choose + 1 or - 1 with {up}."
    return Problem(
        name=pick.one(f"updown_{width}", f"up_down_counter_{width}", f"bidir_counter{width}")
        + ("_sat" if limits == "saturate" else ""),
        ports=pick.ports([given(clk), *resets(r), *([given(en)] if en else []), given(up)], [reg(q, width)]),
        lead=lead,
        details=tuple(details),
        thought=(thought, *reset_thinks(pick, r)),
        body=tuple(clocked(clk, r, [f"{q} <= {decimal(width, 0)};"], inner)),
        clock=clk,
        reset=r,
        hold=((up, level), *(((en, 1),) if en else ())),
        run=ones(width) + 20,
    )


WIDTHS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
PERIODS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 20, 24, 25, 30, 32, 50, 60, 100)


FAMILIES = (
    Family(
        "counter",
        counter,
        grid(
            direction=("up", "down"),
            width=WIDTHS,
            reset=RESETS,
            enable=("none", "high", "low"),
            value=("zero", "one", "ones"),
        ),
    ),
    Family(
        "modulo",
        modulo,
        grid(
            lambda count, first, **_: (first or count & (count - 1)) and first + count != 1 << count.bit_length(),
            direction=("up", "down"),
            count=PERIODS,
            first=(0, 1),
            reset=RESETS,
            enable=("none", "high"),
        ),
    ),
    Family(
        "load_counter",
        load_counter,
        grid(direction=("up", "down"), width=WIDTHS, reset=RESETS, enable=("none", "high")),
    ),
    Family(
        "updown",
        updown,
        grid(width=WIDTHS[:6], reset=RESETS, level=(0, 1), limits=("wrap", "saturate"), enable=("none", "high")),
    ),
)
