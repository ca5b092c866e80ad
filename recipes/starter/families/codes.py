"""Families that recode one vector: complements, bit counts, parity, Gray code."""

from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import Pick, bits, given, reg, wire


def unary(pick: Pick, kind: str, width: int) -> Problem:
    """One vector in, one out: the complement, the two's complement, or the absolute value."""
    a, y = pick.name("data"), pick.name("out")
    says, expression = {
        "complement": ("the bitwise complement", f"~{a}"),
        "negate": ("the two's complement negation", f"-{a}"),
        "absolute": ("the absolute value", f"{a}[{width - 1}] ? -{a} : {a}"),
    }[kind]
    lead = pick.one(
        f"output {says} of the {width}-bit input {a}",
        f"compute {says} of {a} and output it on {y}",
        f"drive {y} with {says} of {a}",
        f"produce {says} of the {width}-bit value {a}",
    )
    details = []
    if kind == "absolute":
        details = [
            pick.one(
                f"{a} is a signed two's complement number; the most negative one stays as it is.",
                f"Treat {a} as a signed number in two's complement; the most negative number maps to itself.",
            )
        ]
    if kind == "negate":
        details = [pick.one(f"That is, 0 minus {a} in {width} bits.", f"The result has {width} bits, like {a}.")]
    return Problem(
        name=pick.one(f"{kind}_{width}", f"{kind}{width}", f"vec_{kind}_{width}"),
        ports=pick.ports([given(a, width)], [wire(y, width)]),
        lead=lead,
        details=tuple(details),
        thought=(f"{y} is {expression}.",),
        body=(f"assign {y} = {expression};",),
    )


def popcount(pick: Pick, of: str, width: int) -> Problem:
    a, y = pick.name("data"), pick.name("count")
    size = width.bit_length()
    lead = pick.one(
        f"count the {of} in the {width}-bit input {a}",
        f"output the number of {of} in {a}",
        f"count how many bits of {a} are {1 if of == 'ones' else 0}",
        f"compute the number of {of} among the {width} bits of {a}",
    )
    term = f"{a}[i]" if of == "ones" else f"!{a}[i]"
    return Problem(
        name=pick.one(f"count_{of}_{width}", f"popcount_{of}{width}", f"num_{of}_{width}"),
        ports=pick.ports([given(a, width)], [reg(y, size)]),
        lead=lead,
        details=(
            pick.one(f"The count is output on {y}.", f"{y} is the count.", f"The output is {y}.", f"Output it on {y}."),
        ),
        thought=(f"The count goes up to {width}, so {y} has {size} bits. Add the bits in a loop.",),
        body=(
            "integer i;",
            "",
            "always @(*) begin",
            f"  {y} = {size}'d0;",
            f"  for (i = 0; i < {width}; i = i + 1)",
            f"    {y} = {y} + {term};",
            "end",
        ),
    )


def parity(pick: Pick, kind: str, width: int, whole: str) -> Problem:
    """A parity bit alone, or the word with its parity bit in front or behind."""
    a, y = pick.name("data"), pick.name("out" if whole != "alone" else "bit")
    symbol = "^" if kind == "even" else "~^"
    lead = pick.one(
        f"compute the {kind} parity bit of the {width}-bit input {a}",
        f"generate an {kind} parity bit for {a}",
        f"generate the parity bit of {a} for {kind} parity",
        f"calculate {kind} parity over the {width} bits of {a}",
    )
    details = [f"With the parity bit included, the number of ones is {kind}."]
    if whole == "alone":
        body, size = f"{symbol}{a}", 1
        details.append(pick.one(f"The parity bit is {y}.", f"Output it on {y}.", f"{y} is the parity bit."))
    elif whole == "front":
        body, size = f"{{{symbol}{a}, {a}}}", width + 1
        details.append(
            pick.one(
                f"{y} is the parity bit followed by {a}.",
                f"The parity bit is the most significant bit of {y}, above {a}.",
            )
        )
    else:
        body, size = f"{{{a}, {symbol}{a}}}", width + 1
        details.append(
            pick.one(
                f"{y} is {a} followed by the parity bit.",
                f"The parity bit is the least significant bit of {y}, below {a}.",
            )
        )
    return Problem(
        name=pick.one(f"parity_{kind}_{width}", f"{kind}_parity{width}", f"par_{kind}_{width}"),
        ports=pick.ports([given(a, width)], [wire(y, size)]),
        lead=lead,
        details=tuple(details),
        thought=(f"The XOR of all bits is 1 for an odd number of ones, so {kind} parity is {symbol}{a}.",),
        body=(f"assign {y} = {body};",),
    )


def gray(pick: Pick, kind: str, width: int) -> Problem:
    a, y = pick.name("data"), pick.name("out")
    to_gray = kind == "to_gray"
    source, target = ("binary", "Gray code") if to_gray else ("Gray code", "binary")
    lead = pick.one(
        f"convert the {width}-bit {source} input {a} to {target}",
        f"convert {a} from {source} to {target} and output it on {y}",
        f"implement {bits(width)} {source} to {target} converter from {a} to {y}",
        f"output on {y} the {target} value of the {source} input {a}",
    )
    if to_gray:
        says = pick.one(
            f"{y} is {a} XOR {a} shifted right by one.",
            f"The top bit is copied; every other bit is {a}[i+1] XOR {a}[i].",
        )
        body: tuple[str, ...] = (f"assign {y} = {a} ^ ({a} >> 1);",)
    else:
        says = pick.one(
            f"Bit i of {y} is the XOR of bits i and above of {a}.",
            f"Every bit of {y} is the XOR of the same and all higher bits of {a}.",
        )
        body = (
            "integer i;",
            "",
            "always @(*)",
            f"  for (i = 0; i < {width}; i = i + 1)",
            f"    {y}[i] = ^({a} >> i);",
        )
    output = wire(y, width) if to_gray else reg(y, width)
    return Problem(
        name=pick.one(
            f"{'bin_to_gray' if to_gray else 'gray_to_bin'}_{width}", f"{'bin2gray' if to_gray else 'gray2bin'}{width}"
        ),
        ports=pick.ports([given(a, width)], [output]),
        lead=lead,
        details=(says,),
        thought=(f"{says}",),
        body=body,
    )


WIDTHS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32)


FAMILIES = (
    Family("unary", unary, grid(kind=("complement", "negate", "absolute"), width=WIDTHS)),
    Family("popcount", popcount, grid(of=("ones", "zeros"), width=WIDTHS[1:10])),
    Family("parity", parity, grid(kind=("even", "odd"), width=WIDTHS, whole=("alone", "front", "back"))),
    Family("gray", gray, grid(kind=("to_gray", "to_binary"), width=WIDTHS[:10])),
)
