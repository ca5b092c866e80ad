"""Families with states: detectors of bit patterns, and small Moore and Mealy machines given as transition lists."""

from random import Random

from recipes.starter.names import RESETS
from recipes.starter.problem import Family, Params, Problem, grid
from recipes.starter.words import (
    Pick,
    address_bits,
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

STATES = "ABCD"


def sequence(pick: Pick, pattern: str, overlap: str, output: str, reset: str) -> Problem:
    """Patterns start with 1, so a history of zeros is the same as no history."""
    clk, r = pick.name("clk"), pick.reset(reset)
    x, y = pick.name("serial"), pick.name("pulse")
    size = len(pattern) - 1
    match = f"{{history, {x}}} == {size + 1}'b{pattern}"
    zero, registered = literal(size, 0), output == "registered"
    moved = f"history <= {{history[{size - 2}:0], {x}}};" if size > 1 else f"history <= {x};"
    lead = pick.one(
        f"detect the bit sequence {pattern} on the serial input {x} and report it on {y}",
        f"implement a detector for the pattern {pattern} on {x} with the output {y}",
        f"recognize the sequence {pattern} in the bits that arrive on {x}, one per clock cycle",
    )
    details = [
        pick.one(
            "The leftmost bit arrives first.", f"The first bit to arrive is {pattern[0]}, the last is {pattern[-1]}."
        ),
        pick.one("Overlapping sequences are detected.", "Detected sequences may overlap.")
        if overlap == "yes"
        else pick.one(
            "Sequences do not overlap: after a match, start again with no bits seen.",
            "After a match all bits seen so far are forgotten, so matches do not overlap.",
        ),
        pick.one(
            f"{y} is registered: it is 1 in the cycle after the last bit.",
            f"{y} is a register that is 1 for one cycle after a match.",
        )
        if registered
        else pick.one(
            f"{y} is combinational: it is 1 while the last bit is on {x}.",
            f"It is a Mealy output: {y} is 1 in the same cycle as the last bit.",
        ),
        *reset_says(pick, r, "the history" + (f" and {y}" if registered else ""), "0"),
        clock_says(pick, clk),
    ]
    cleared = [f"history <= {zero};"] + ([f"{y} <= 1'b0;"] if registered else [])
    step = moved if overlap == "yes" else f"history <= {match} ? {zero} : {moved.removeprefix('history <= ')}"
    steps = [step] + ([f"{y} <= {match};"] if registered else [])
    body = [f"reg {vector(size)}history;", "", *clocked(clk, r, cleared, [("", steps)])]
    return Problem(
        name=pick.one(f"detect_{pattern}", f"seq_{pattern}", f"pattern_{pattern}_det"),
        ports=pick.ports([given(clk), *resets(r), given(x)], [reg(y) if registered else wire(y)]),
        lead=lead,
        details=tuple(details),
        thought=(
            f"Keep the last {size} bits in history and compare {{history, {x}}} with {size + 1}'b{pattern}.",
            *reset_thinks(pick, r),
        ),
        body=(*body, *(() if registered else ("", f"assign {y} = {match};"))),
        clock=clk,
        reset=r,
        run=100,
    )


def machine(pick: Pick, kind: str, successors: str, outputs: str, reset: str) -> Problem:
    """`successors` lists the next states for input 0 and 1, state by state; Mealy `outputs` do the same."""
    clk, r = pick.name("clk"), pick.reset(reset)
    x, y = (
        pick.name("serial"),
        pick.one("out", "y", "z", "f", "result") if kind == "moore" else pick.one("y", "z", "f", "res"),
    )
    count = len(successors) // 2
    size = address_bits(count)
    pairs = [successors[2 * i : 2 * i + 2] for i in range(count)]
    names = STATES[:count]
    lead = pick.one(
        f"implement a {kind.capitalize()} machine with {count} states, the input {x} and the output {y}",
        f"implement a {kind.capitalize()} state machine with the states {', '.join(names)}, "
        f"the input {x} and the output {y}",
        f"be a finite state machine with {count} states, the input {x} and the {kind.capitalize()} output {y}",
    )
    style = pick.rng.randrange(2)
    listing = [
        _state_says(style, kind, s, p, outputs[i] if kind == "moore" else outputs[2 * i : 2 * i + 2], x, y)
        for i, (s, p) in enumerate(zip(names, pairs, strict=True))
    ]
    body = [
        f"localparam {', '.join(f'{s} = {literal(size, i)}' for i, s in enumerate(names))};",
        f"reg {vector(size)}state, next;",
        "",
        "always @(*)",
        "  case (state)",
        *(f"    {s}: next = {x} ? {p[1]} : {p[0]};" for s, p in zip(names, pairs, strict=True)),
        *(() if count == 1 << size else (f"    default: next = {names[0]};",)),
        "  endcase",
        "",
        *clocked(clk, r, [f"state <= {names[0]};"], [("", ["state <= next;"])]),
        "",
        f"assign {y} = {_output(kind, names, outputs, x)};",
    ]
    return Problem(
        name=pick.one(f"fsm_{count}", f"{kind}_fsm_{count}", f"{kind}_{count}_states"),
        ports=pick.ports([given(clk), *resets(r), given(x)], [wire(y)]),
        lead=lead,
        details=(*listing, *reset_says(pick, r, "the state", names[0]), clock_says(pick, clk)),
        thought=(f"{count} states need {size} bit{'s' if size > 1 else ''}.", *reset_thinks(pick, r)),
        body=tuple(body),
        clock=clk,
        reset=r,
        run=100,
    )


def _state_says(style: int, kind: str, state: str, after: str, output: str, x: str, y: str) -> str:
    if kind == "moore":
        return (
            f"In state {state}, {y} is {output}; the next state is {after[0]} if {x} is 0 and {after[1]} if {x} is 1.",
            f"State {state} ({y}={output}): {x}=0 goes to {after[0]}, {x}=1 goes to {after[1]}.",
        )[style]
    return (
        f"In state {state}, {x}=0 gives {y}={output[0]} and leads to {after[0]}; "
        f"{x}=1 gives {y}={output[1]} and leads to {after[1]}.",
        f"State {state}: {x}=0 goes to {after[0]} with {y}={output[0]}, {x}=1 goes to {after[1]} with {y}={output[1]}.",
    )[style]


def _output(kind: str, names: str, outputs: str, x: str) -> str:
    terms = []
    for i, state in enumerate(names):
        test = f"state == {state}"
        mine = outputs[i] if kind == "moore" else outputs[2 * i : 2 * i + 2]
        if mine in ("1", "11"):
            terms.append(f"({test})")
        elif mine in ("01", "10"):
            terms.append(f"({test} && {'' if mine == '01' else '!'}{x})")
    return " || ".join(terms)


def _reachable(successors: str) -> bool:
    seen, count = {"A"}, len(successors) // 2
    for _ in range(count):
        seen |= {after for s in seen for after in successors[2 * STATES.index(s) : 2 * STATES.index(s) + 2]}
    return len(seen) == count


def _tables(number: int) -> tuple[Params, ...]:
    """`number` different machines in which every state can be reached and the output is not constant."""
    rng, found = Random("machines"), {}
    while len(found) < number:
        kind, reset = rng.choice(("moore", "mealy")), rng.choice(RESETS)
        count = rng.choice((2, 3, 3, 4) if kind == "moore" else (2, 3))
        successors = "".join(rng.choice(STATES[:count]) for _ in range(2 * count))
        outputs = "".join(rng.choice("01") for _ in range(count if kind == "moore" else 2 * count))
        if _reachable(successors) and len(set(outputs)) == 2:
            found[(("kind", kind), ("successors", successors), ("outputs", outputs), ("reset", reset))] = None
    return tuple(found)


PATTERNS = tuple(format(value, "b") for value in range(2, 32))

FAMILIES = (
    Family(
        "sequence",
        sequence,
        grid(pattern=PATTERNS, overlap=("yes", "no"), output=("direct", "registered"), reset=RESETS),
    ),
    Family("machine", machine, _tables(600), composed=("successors", "outputs")),
)
