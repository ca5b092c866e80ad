"""Families that compute: adders and subtracters with carries, constants, products, small ALUs."""

from itertools import permutations

from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import Pick, bits, given, literal, number, reg, wire

ALU = {"add": "+", "subtract": "-", "and": "&", "or": "|", "xor": "^"}


def adder(pick: Pick, op: str, width: int, carry_in: str, extra: str) -> Problem:
    """Sum or difference; `extra` adds a carry (borrow) or a signed overflow output."""
    (a, b), y = pick.pair(), pick.name("sum")
    add = op == "add"
    ci = (pick.name("carry_in") if add else pick.one("bin", "borrow_in", "bi")) if carry_in == "carry" else ""
    co = {
        "carry": (pick.name("carry") if add else pick.one("bout", "borrow", "bo")),
        "overflow": pick.name("overflow"),
        "none": "",
    }[extra]
    word, sign, result = ("carry", "+", "sum") if add else ("borrow", "-", "difference")
    expression = f"{a} {sign} {b}" + (f" {sign} {ci}" if ci else "")
    lead = pick.one(
        f"{f'add {a} and {b}' if add else f'subtract {b} from {a}'} and output the {width}-bit {result} {y}",
        f"implement {bits(width)} {'adder' if add else 'subtractor'} that computes {y} = {a} {sign} {b}",
        f"compute {a} {'plus' if add else 'minus'} {b} in {width} bits on {y}",
    )
    details = []
    if ci:
        details.append(
            pick.one(
                f"The {word} input {ci} is {'added' if add else 'subtracted'} too.",
                f"{ci} is the {word} in and is also {'added' if add else 'subtracted'}.",
            )
        )
    if extra == "carry":
        details.append(
            pick.one(f"{co} is the carry out of the addition.", f"The carry out is {co}.")
            if add
            else pick.one(
                f"{co} is the borrow: 1 when the unsigned result is below 0.",
                f"The borrow {co} is 1 if the unsigned difference is negative.",
            )
        )
        body: tuple[str, ...] = (f"assign {{{co}, {y}}} = {expression};",)
    elif extra == "overflow":
        details.append(
            pick.one(
                f"{co} is 1 when a signed overflow occurs.",
                f"The numbers are in two's complement; {co} indicates signed overflow.",
            )
        )
        top = width - 1
        same = f"({a}[{top}] {'==' if add else '!='} {b}[{top}])"
        body = (f"assign {y} = {expression};", f"assign {co} = {same} && ({y}[{top}] != {a}[{top}]);")
    else:
        details.append(pick.one(f"The {word} out is dropped.", f"The result wraps around in {width} bits."))
        body = (f"assign {y} = {expression};",)
    return Problem(
        name=pick.one(
            f"{'adder' if add else 'subtractor'}_{width}", f"{op}_{width}", f"{'add' if add else 'sub'}{width}"
        ),
        ports=pick.ports(
            [given(a, width), given(b, width), *([given(ci)] if ci else [])],
            [wire(y, width), *([wire(co)] if co else [])],
        ),
        lead=lead,
        details=tuple(details),
        thought=(f"The {'sum' if add else 'difference'} is {expression}.",),
        body=body,
    )


def add_subtract(pick: Pick, width: int, level: int, operands: str) -> Problem:
    """Adds or subtracts by a mode input; subtracts when it equals `level`."""
    (a, b), m, y = pick.pair(), pick.name("mode"), pick.name("sum")
    x, z = (a, b) if operands == "forward" else (b, a)
    lead = pick.one(
        f"add or subtract {a} and {b} depending on {m}, with the {width}-bit output {y}",
        f"implement {bits(width)} adder and subtractor controlled by {m}, with the output {y}",
        f"compute the sum or the difference of {a} and {b} on {y}, as {m} says",
    )
    detail = pick.one(
        f"When {m} is {level}, {y} is {x} - {z}; when {m} is {1 - level}, it is {x} + {z}.",
        f"{m}={1 - level} means {x} + {z} and {m}={level} means {x} - {z}.",
        f"It computes {x} - {z} if {m} is {level}, and {x} + {z} if {m} is {1 - level}.",
    )
    ways = (f"{x} - {z}", f"{x} + {z}") if level else (f"{x} + {z}", f"{x} - {z}")
    return Problem(
        name=pick.one(f"addsub_{width}", f"add_sub{width}", f"adder_subtractor_{width}"),
        ports=pick.ports([given(m), given(a, width), given(b, width)], [wire(y, width)]),
        lead=lead,
        details=(detail, pick.one("The result wraps around.", "The carry is dropped.")),
        thought=(f"{m} = 1 gives {ways[0]}.",),
        body=(f"assign {y} = {m} ? {ways[0]} : {ways[1]};",),
    )


def offset(pick: Pick, op: str, width: int, value: int) -> Problem:
    a, y = pick.name("data"), pick.name("out")
    sign = "+" if op == "add" else "-"
    lead = pick.one(
        f"{op} the constant {number(value)} {'to' if op == 'add' else 'from'} {a} and output the result on {y}",
        f"compute {a} {'plus' if op == 'add' else 'minus'} {number(value)} in {width} bits on {y}",
        f"output {a} {sign} {number(value)} on {y}",
    )
    return Problem(
        name=pick.one(
            f"{op}_{value}_{width}", f"{'plus' if op == 'add' else 'minus'}{value}_w{width}", f"offset_{value}_{width}"
        ),
        ports=pick.ports([given(a, width)], [wire(y, width)]),
        lead=lead,
        details=(
            pick.one("The result wraps around.", f"Keep the lower {width} bits.", f"It is computed modulo 2^{width}."),
        ),
        thought=(f"{y} is {a} {sign} {literal(width, value)}.",),
        body=(f"assign {y} = {a} {sign} {literal(width, value)};",),
    )


def product(pick: Pick, first: int, second: int, kind: str) -> Problem:
    (a, b), y = pick.pair(), pick.one("prod", "product", "out", "result", "z")
    signed = kind == "signed"
    expression = f"$signed({a}) * $signed({b})" if signed else f"{a} * {b}"
    lead = pick.one(
        f"multiply the {kind} numbers {a} and {b} and output the product on {y}",
        f"compute the {kind} product of {a} and {b} on {y}",
        f"implement a multiplier for {kind} numbers: {y} is {a} times {b}",
    )
    return Problem(
        name=pick.one(f"mult_{first}x{second}", f"multiplier_{first}_{second}", f"mul_{kind}_{first}x{second}"),
        ports=pick.ports([given(a, first), given(b, second)], [wire(y, first + second)]),
        lead=lead,
        details=(
            pick.one(f"The product has {first + second} bits.", "The product is full width, so nothing is lost."),
        ),
        thought=(f"{first} by {second} bits give {first + second} bits: {expression}.",),
        body=(f"assign {y} = {expression};",),
    )


def alu(pick: Pick, width: int, ops: str) -> Problem:
    """An ALU of four (or two) operations; `ops` lists them from opcode 0 on."""
    (a, b), s, y = pick.pair(), pick.name("opcode"), pick.name("out")
    names = ops.split(",")
    size = 2 if len(names) > 2 else 1
    results = [f"{a} {ALU[n]} {b}" for n in names]
    lead = pick.one(
        f"implement {bits(width)} ALU with the operands {a} and {b}, the operation {s} and the result {y}",
        f"implement a small ALU: {s} selects the operation on {a} and {b}, and {y} is the result",
        f"compute {y} from {a} and {b} with the operation that {s} selects",
    )
    listing = [f"{s}={i}: {r}" for i, r in enumerate(results)]
    detail = pick.one(
        f"The operations are {'; '.join(listing)}.",
        f"{y} is {', '.join(f'{r} for {s}={i}' for i, r in enumerate(results))}.",
        f"The values 0 to {len(names) - 1} of {s} mean {', '.join(results)} in this order.",
    )
    if size == 1:
        body: tuple[str, ...] = (f"assign {y} = {s} ? {results[1]} : {results[0]};",)
    else:
        body = (
            "always @(*)",
            f"  case ({s})",
            *(f"    {literal(size, i)}: {y} = {r};" for i, r in enumerate(results[:-1])),
            f"    default: {y} = {results[-1]};",
            "  endcase",
        )
    return Problem(
        name=pick.one(f"alu_{width}", f"alu{len(names)}_{width}", f"small_alu_{width}"),
        ports=pick.ports(
            [given(s, size), given(a, width), given(b, width)], [reg(y, width) if size > 1 else wire(y, width)]
        ),
        lead=lead,
        details=(detail, pick.one("Results wrap around.", "Carries are dropped.")),
        thought=(f"A case on {s} lists the operations." if size > 1 else f"{s} chooses one of two results.",),
        body=body,
    )


WIDTHS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32)

FAMILIES = (
    Family(
        "adder",
        adder,
        grid(
            lambda width, extra, **_: width > 1 or extra != "overflow",
            op=("add", "subtract"),
            width=(1, *WIDTHS),
            carry_in=("none", "carry"),
            extra=("none", "carry", "overflow"),
        ),
    ),
    Family("add_subtract", add_subtract, grid(width=WIDTHS, level=(0, 1), operands=("forward", "reverse"))),
    Family(
        "offset",
        offset,
        grid(
            lambda width, value, **_: value < 1 << (width - 1),
            op=("add", "subtract"),
            width=WIDTHS[1:],
            value=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15),
        ),
    ),
    Family("product", product, grid(first=(2, 3, 4, 5, 6, 8), second=(2, 3, 4, 5, 6, 8), kind=("unsigned", "signed"))),
    Family(
        "alu",
        alu,
        grid(width=WIDTHS[2:10], ops=tuple(",".join(p) for size in (2, 4) for p in permutations(ALU, size))),
        composed=("ops",),
    ),
)
