"""Families that only move bits: constants, slices, concatenation, replication, reordering, extension."""

from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import Pick, bits, given, literal, number, reg, wire


def constant(pick: Pick, width: int, value: int) -> Problem:
    y = pick.name("out")
    lead = pick.one(
        f"always output the {width}-bit constant {number(value)} on {y}",
        f"drive {y} with the constant {number(value)}",
        f"set the {width}-bit output {y} to the constant value {number(value)}",
        f"output the fixed value {number(value)} on {y}",
    )
    return Problem(
        name=pick.one(f"const_{value}", f"constant_{width}_{value}", f"fixed_{value}"),
        ports=pick.ports([], [wire(y, width)]),
        lead=lead,
        details=(),
        thought=(f"In {width} bits the constant is {literal(width, value)}.",),
        body=(f"assign {y} = {literal(width, value)};",),
    )


def cut(pick: Pick, width: int, low: int, size: int) -> Problem:
    a, y = pick.name("data"), pick.name("out")
    high = low + size - 1
    field = f"{a}[{high}:{low}]" if size > 1 else f"{a}[{low}]"
    says = f"bits {high} down to {low} of {a}" if size > 1 else f"bit {low} of {a}"
    lead = pick.one(
        f"output {says} on {y}",
        f"extract {says} and drive {y} with the result",
        f"connect {says} to the output {y}",
        f"take {field} from the {width}-bit input {a} and output it on {y}",
    )
    return Problem(
        name=pick.one(f"slice_{high}_{low}", f"bits_{high}_to_{low}", f"extract_{width}_{high}_{low}"),
        ports=pick.ports([given(a, width)], [wire(y, size)]),
        lead=lead,
        details=(),
        thought=(f"The part select is {field}.",),
        body=(f"assign {y} = {field};",),
    )


def concat(pick: Pick, first: int, second: int, order: str) -> Problem:
    (a, b), y = pick.pair(), pick.name("out")
    high, low = (a, b) if order == "first_high" else (b, a)
    lead = pick.one(
        f"concatenate {a} and {b} into the {first + second}-bit output {y}",
        f"join {a} and {b} to one vector {y}",
        f"combine the inputs {a} and {b} into {bits(first + second)} vector {y}",
        f"output on {y} the concatenation of {a} and {b}",
    )
    detail = pick.one(
        f"{high} forms the upper bits and {low} the lower bits.",
        f"The most significant bits come from {high}.",
        f"{low} goes to the least significant bits and {high} above it.",
        f"{high} is on the left, in the high bits.",
    )
    return Problem(
        name=pick.one(f"concat_{first}_{second}", f"join_{first + second}", f"pack_{first}_{second}"),
        ports=pick.ports([given(a, first), given(b, second)], [wire(y, first + second)]),
        lead=lead,
        details=(detail,),
        thought=(f"The order is {{{high}, {low}}}.",),
        body=(f"assign {y} = {{{high}, {low}}};",),
    )


def replicate(pick: Pick, width: int, copies: int) -> Problem:
    a, y = pick.name("data"), pick.name("out")
    lead = pick.one(
        f"repeat {a} {copies} times in the output {y}",
        f"replicate the input {a} {copies} times to form {y}",
        f"fill {y} with {copies} copies of {a}",
        f"output {copies} copies of {a} side by side on {y}",
    )
    return Problem(
        name=pick.one(f"replicate_{copies}", f"repeat_{width}x{copies}", f"copies_{copies}_{width}"),
        ports=pick.ports([given(a, width)], [wire(y, width * copies)]),
        lead=lead,
        details=(),
        thought=(f"The replication operator is {{{copies}{{{a}}}}}.",),
        body=(f"assign {y} = {{{copies}{{{a}}}}};",),
    )


def extend(pick: Pick, kind: str, width: int, extra: int) -> Problem:
    a, y = pick.name("data"), pick.name("out")
    size = width + extra
    fill = f"{{{extra}{{{a}[{width - 1}]}}}}" if kind == "sign" else literal(extra, 0)
    lead = pick.one(
        f"{kind}-extend the {width}-bit input {a} to the {size}-bit output {y}",
        f"{kind}-extend {a} from {width} to {size} bits and output it on {y}",
        f"extend {a} to {size} bits on {y} by {kind} extension",
        f"convert the {width}-bit {'signed' if kind == 'sign' else 'unsigned'} number {a} to {size} bits on {y}",
    )
    detail = (
        pick.one(
            f"The new upper bits are copies of the sign bit {a}[{width - 1}].",
            f"Repeat {a}[{width - 1}] in the upper bits.",
        )
        if kind == "sign"
        else pick.one("The new upper bits are 0.", "Fill the upper bits with zeros.")
    )
    return Problem(
        name=pick.one(f"{kind}_extend_{width}_{size}", f"{kind[0]}ext_{width}_to_{size}", f"{kind}_ext{size}"),
        ports=pick.ports([given(a, width)], [wire(y, size)]),
        lead=lead,
        details=(detail,),
        thought=(f"{size} - {width} = {extra} bits are added in front: {fill}.",),
        body=(f"assign {y} = {{{fill}, {a}}};",),
    )


def reorder(pick: Pick, unit: int, count: int) -> Problem:
    """Reverse the order of `count` units of `unit` bits: bits, nibbles, bytes or halves of another size."""
    a, y = pick.name("data"), pick.name("out")
    width = unit * count
    name = {1: "bit", 4: "nibble", 8: "byte"}.get(unit, f"{unit}-bit group")
    if count == 2 and unit > 1:
        lead = pick.one(
            f"swap the two halves of the {width}-bit input {a} and output the result on {y}",
            f"exchange the upper and the lower {unit} bits of {a} to form {y}",
            f"output {a} on {y} with its {unit}-bit halves swapped",
        )
    else:
        lead = pick.one(
            f"reverse the order of the {name}s of the {width}-bit input {a} and output the result on {y}",
            f"output {a} on {y} with its {name}s in reverse order",
            f"reverse the {name} order of {a} to form {y}",
        )
    parts = [f"{a}[{(i + 1) * unit - 1}:{i * unit}]" for i in range(count)]
    if unit == 1:
        detail = pick.one(
            f"{y}[0] is {a}[{width - 1}] and {y}[{width - 1}] is {a}[0].",
            f"Bit 0 of {a} becomes bit {width - 1} of {y}.",
        )
        body: tuple[str, ...] = (
            "integer i;",
            "",
            "always @(*)",
            f"  for (i = 0; i < {width}; i = i + 1)",
            f"    {y}[i] = {a}[{width - 1} - i];",
        )
    else:
        detail = pick.one(
            f"{parts[0]} becomes the most significant part.", f"The highest {unit} bits of {y} are {parts[0]}."
        )
        body = (f"assign {y} = {{{', '.join(parts)}}};",)
    return Problem(
        name=pick.one(
            f"reverse_{name.replace('-', '_').replace(' ', '_')}s_{width}",
            f"reorder_{unit}x{count}",
            f"swap_{unit}x{count}",
        ),
        ports=pick.ports([given(a, width)], [reg(y, width) if unit == 1 else wire(y, width)]),
        lead=lead,
        details=(detail,),
        thought=(f"Part 0 goes to the top, part {count - 1} to the bottom.",),
        body=body,
    )


VALUES = (*range(16), 0x1F, 0x2A, 0x34, 0x3C, 0x55, 0x5A, 0x7F, 0x80, 0xA5, 0xC3, 0xF0, 0xFF)

FAMILIES = (
    Family(
        "constant",
        constant,
        grid(lambda width, value: value < 1 << width, width=(2, 3, 4, 5, 6, 7, 8, 10, 12, 16), value=VALUES),
    ),
    Family(
        "slice",
        cut,
        grid(
            lambda width, low, size: low + size <= width,
            width=(6, 8, 10, 12, 16, 24, 32),
            low=(0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24),
            size=(1, 2, 3, 4, 5, 8, 12),
        ),
    ),
    Family(
        "concat",
        concat,
        grid(first=(1, 2, 3, 4, 5, 6, 7, 8), second=(1, 2, 3, 4, 5, 6, 7, 8), order=("first_high", "second_high")),
    ),
    Family("replicate", replicate, grid(width=(1, 2, 3, 4, 8), copies=(2, 3, 4, 5, 6, 8))),
    Family(
        "extend", extend, grid(kind=("sign", "zero"), width=(2, 3, 4, 5, 6, 8, 10, 12, 16), extra=(2, 3, 4, 6, 8, 16))
    ),
    Family(
        "reorder",
        reorder,
        grid(lambda unit, count: unit * count <= 32, unit=(1, 2, 3, 4, 5, 6, 8), count=(2, 3, 4, 5, 6, 7, 8)),
    ),
)
