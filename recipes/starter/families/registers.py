"""Families that store: flip-flops, registers with byte enables, T/JK flip-flops, delays, shift and ring registers."""

from recipes.starter.names import RESETS
from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import (
    Pick,
    bits,
    clock_says,
    clocked,
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

STYLES = ("none", *RESETS)


def value_of(kind: str, width: int) -> int:
    return {"zero": 0, "one": 1, "ones": ones(width), "mixed": 0x5A3C & ones(width)}[kind]


def dff(pick: Pick, width: int, reset: str, enable: str, value: str, edge: str) -> Problem:
    clk, r = pick.name("clk"), pick.reset(reset)
    d, q = pick.name("data"), pick.name("stored")
    en = pick.name("enable") if enable != "none" else ""
    level = 1 if enable == "high" else 0
    start = value_of(value, width)
    what = (
        "a D flip-flop"
        if width == 1
        else pick.one(f"{bits(width)} register", f"{width} D flip-flops", f"{bits(width)} wide D flip-flop")
    )
    lead = pick.one(
        f"implement {what} with the input {d} and the output {q}",
        f"store {d} in {what} whose output is {q}",
        f"implement {what} that copies {d} to {q}",
        f"implement {what} from {d} to {q}",
    )
    way = "positive" if edge == "pos" else "negative"
    clocking = (
        clock_says(pick, clk)
        if edge == "pos"
        else pick.one(
            f"All flip-flops are triggered by the negative edge of {clk}.",
            f"{q} is updated on the falling edge of {clk}.",
            f"Use the negative edge of {clk} as the trigger.",
            "Assume all sequential logic is triggered on the negative edge of the clock.",
        )
    )
    details = reset_says(pick, r, q, number(start))
    details += enable_says(pick, en, level, q, r) if en else []
    thought = [f"{q} is a register on the {way} edge of {clk}.", *reset_thinks(pick, r)]
    thought += [f"{en} gates the load."] if en else []
    return Problem(
        name=pick.one("dff", "d_flip_flop", "reg_d") + f"_{width}"
        if width < 4
        else pick.one("register", "reg", "dff") + f"_{width}",
        ports=pick.ports([given(clk), *resets(r), *([given(en)] if en else []), given(d, width)], [reg(q, width)]),
        lead=lead,
        details=(*details, clocking),
        thought=tuple(thought),
        body=tuple(
            clocked(
                clk if edge == "pos" else f"negedge {clk}",
                r,
                [f"{q} <= {literal(width, start)};"],
                [((en if level else f"!{en}") if en else "", [f"{q} <= {d};"])],
            )
        ),
        clock=clk,
        reset=r,
        hold=((en, level),) if en else (),
    )


def byte_enable(pick: Pick, lanes: int, lane: int, reset: str, enable: str) -> Problem:
    """A register whose lanes (bytes or nibbles) are written one by one."""
    clk, r = pick.name("clk"), pick.reset(reset)
    d, q = pick.name("data"), pick.name("stored")
    be = (
        pick.one("byteena", "be", "wstrb", "byte_en", "mask")
        if lane == 8
        else pick.one("lane_en", "we_lane", "mask", "wmask")
    )
    width, level = lanes * lane, 1 if enable == "high" else 0
    unit = "byte" if lane == 8 else "nibble" if lane == 4 else "halfword"
    lead = pick.one(
        f"implement {bits(width)} register with {unit} enables, input {d} and output {q}",
        f"store {d} in {bits(width)} register {q} with one write enable per {unit}",
        f"implement {bits(width)} register {q} whose {lanes} {unit}s can be written separately from {d}",
    )
    first = f"{be}[0] controls {q}[{lane - 1}:0]" + (f" and {be}[{lanes - 1}] controls {q}[{width - 1}:{width - lane}]")
    details = [
        pick.one(
            f"Each bit of {be} enables one {unit}: {first}.",
            f"The {unit} enables are in {be}; {first}.",
            f"{first}, and so on." if lanes > 2 else f"{first}.",
        ),
        pick.one(
            f"A {unit} is written when its enable bit is {level} and keeps its value otherwise.",
            f"When an enable bit is {level}, its {unit} of {d} is stored; otherwise that {unit} holds.",
            f"The enable bits are active {enable}: only the enabled {unit}s are written.",
        ),
        *reset_says(pick, r, q, "0"),
        *([f"Reset has priority over {be}."] if r else []),
        clock_says(pick, clk),
    ]
    writes = []
    for i in range(lanes):
        part = f"[{(i + 1) * lane - 1}:{i * lane}]"
        writes.append(f"if ({'' if level else '!'}{be}[{i}]) {q}{part} <= {d}{part};")
    branches = [("", writes)]
    return Problem(
        name=pick.one(f"{unit}_enable_reg_{width}", f"reg_{unit}en{width}", f"lane_reg_{width}"),
        ports=pick.ports([given(clk), *resets(r), given(be, lanes), given(d, width)], [reg(q, width)]),
        lead=lead,
        details=tuple(details),
        thought=(f"Every {unit} has its own if on a bit of {be}.", *reset_thinks(pick, r)),
        body=tuple(clocked(clk, r, [f"{q} <= {literal(width, 0)};"], branches)),
        clock=clk,
        reset=r,
    )


def flip_flop(pick: Pick, kind: str, reset: str, value: int) -> Problem:
    """Flip-flops that toggle: T, JK, SR (set wins or reset wins), and one that toggles on every clock."""
    clk, r = pick.name("clk"), pick.reset(reset)
    q = pick.name("stored")
    a, b = {
        "t": (pick.one("t", "toggle", "tin", "flip"), ""),
        "jk": ("j", "k"),
        "set_first": ("s", "r"),
        "reset_first": ("s", "r"),
        "always": ("", ""),
    }[kind]
    says, branches = {
        "t": (
            [
                pick.one(
                    f"When {a} is 1, {q} toggles; when {a} is 0, {q} keeps its value.",
                    f"{q} inverts on each clock edge where {a} is 1 and holds otherwise.",
                )
            ],
            [(a, [f"{q} <= ~{q};"])],
        ),
        "jk": (
            ["With j=0 and k=0 the output holds; j=0, k=1 clears it; j=1, k=0 sets it; j=1, k=1 toggles it."],
            [("j && k", [f"{q} <= ~{q};"]), ("j", [f"{q} <= 1'b1;"]), ("k", [f"{q} <= 1'b0;"])],
        ),
        "set_first": (
            [f"s=1 sets {q} to 1 and r=1 clears it to 0; if both are 1, s wins. If both are 0, {q} holds."],
            [("s", [f"{q} <= 1'b1;"]), ("r", [f"{q} <= 1'b0;"])],
        ),
        "reset_first": (
            [f"s=1 sets {q} to 1 and r=1 clears it to 0; if both are 1, r wins. If both are 0, {q} holds."],
            [("r", [f"{q} <= 1'b0;"]), ("s", [f"{q} <= 1'b1;"])],
        ),
        "always": (
            [pick.one(f"{q} inverts on every clock edge.", f"{q} toggles in every clock cycle.")],
            [("", [f"{q} <= ~{q};"])],
        ),
    }[kind]
    what = {"t": "a T flip-flop", "jk": "a JK flip-flop", "always": "a flip-flop that toggles all the time"}.get(
        kind, "a clocked SR flip-flop"
    )
    lead = pick.one(
        f"implement {what} with the output {q}",
        f"implement {what} whose output is {q}",
        f"be {what}, with the output {q}",
    )
    return Problem(
        name=pick.one(
            {"t": "tff", "jk": "jkff", "always": "toggler"}.get(kind, "srff"),
            {"t": "t_flip_flop", "jk": "jk_flip_flop", "always": "toggle_bit"}.get(kind, "sr_flip_flop"),
        ),
        ports=pick.ports([given(clk), *resets(r), *(given(n) for n in (a, b) if n)], [reg(q)]),
        lead=lead,
        details=(*says, *reset_says(pick, r, q, str(value)), clock_says(pick, clk)),
        thought=(f"{q} is one bit of state.", *reset_thinks(pick, r)),
        body=tuple(clocked(clk, r, [f"{q} <= 1'b{value};"], branches)),
        clock=clk,
        reset=r,
    )


FAMILIES = (
    Family(
        "dff",
        dff,
        grid(
            lambda width, reset, enable, value, edge: (
                (reset != "none" or value == "zero")
                and (width > 1 or value in ("zero", "one"))
                and (width > 5 or value != "mixed")
            ),
            width=(1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32),
            reset=STYLES,
            enable=("none", "high", "low"),
            value=("zero", "one", "ones", "mixed"),
            edge=("pos", "neg"),
        ),
    ),
    Family(
        "byte_enable",
        byte_enable,
        grid(
            lambda lanes, lane, **_: lanes * lane <= 32,
            lanes=(2, 3, 4),
            lane=(4, 8, 16),
            reset=STYLES,
            enable=("high", "low"),
        ),
    ),
    Family(
        "flip_flop", flip_flop, grid(kind=("t", "jk", "set_first", "reset_first", "always"), reset=RESETS, value=(0, 1))
    ),
)
