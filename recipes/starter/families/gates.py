"""Gates: of single bits, in two levels, on whole vectors, over the bits of a vector, and as truth tables."""

from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import Pick, given, wire

OPERATORS = {"and": "&", "or": "|", "xor": "^", "nand": "&", "nor": "|", "xnor": "^"}


def article(word: str) -> str:
    return f"an {word}" if word.lower() in ("and", "or", "xor", "xnor") else f"a {word}"


def joined(op: str, terms: list[str]) -> str:
    """The expression for `terms` combined by `op`, inverted as a whole for nand, nor and xnor."""
    text = f" {OPERATORS[op]} ".join(terms)
    return f"~({text})" if op in ("nand", "nor", "xnor") else text


def listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def gate(pick: Pick, op: str, inputs: int, inverted: str) -> Problem:
    names, y = pick.series(inputs), pick.name("bit")
    at = {"none": -1, "first": 0, "last": inputs - 1}[inverted]
    terms = [f"~{n}" if i == at else n for i, n in enumerate(names)]
    lead = pick.one(
        f"implement {article(op.upper())} gate with the inputs {listed(names)} and the output {y}",
        f"compute the {op.upper()} of {listed(names)} and output it on {y}",
        f"drive {y} with the {op.upper()} of the {inputs} inputs {listed(names)}",
        f"implement a {inputs}-input {op.upper()} gate whose output is {y}",
    )
    details = []
    if at >= 0:
        n = names[at]
        details = [
            pick.one(
                f"The input {n} is inverted before the gate.",
                f"Input {n} passes through an inverter first.",
                f"Use the complement of {n} instead of {n}.",
                f"{n} is inverted before it enters the gate.",
            )
        ]
    expression = joined(op, terms)
    return Problem(
        name=pick.one(f"{op}{inputs}", f"{op}_gate{inputs}", f"gate_{op}{inputs}") + ("_inv" if at >= 0 else ""),
        ports=pick.ports([given(n) for n in names], [wire(y)]),
        lead=lead,
        details=tuple(details),
        thought=(pick.one(f"This is one gate: {y} = {expression}.", f"{y} is {expression}."),),
        body=(f"assign {y} = {expression};",),
    )


def two_level(pick: Pick, first: str, second: str, shape: str) -> Problem:
    groups = [int(size) for size in shape.split("+")]
    names, y = pick.series(sum(groups)), pick.name("bit")
    parts = [names[: groups[0]], names[groups[0] :]]
    inner = [f"({joined(first, p)})" if len(p) > 1 and joined(first, p)[0] != "~" else joined(first, p) for p in parts]
    inner = [t if len(p) > 1 else p[0] for t, p in zip(inner, parts, strict=True)]
    says = [f"the {first.upper()} of {listed(p)}" if len(p) > 1 else p[0] for p in parts]
    lead = pick.one(
        f"implement two levels of gates: {y} is the {second.upper()} of two terms",
        f"compute {y} as the {second.upper()} of two terms",
        f"combine two terms with {article(second.upper())} gate to produce {y}",
        f"output on {y} the {second.upper()} of two terms",
    )
    detail = pick.one(
        f"The first term is {says[0]}, and the second is {says[1]}.",
        f"The terms are {says[0]}, and {says[1]}.",
        f"One term is {says[0]}; the other is {says[1]}.",
        f"The gate combines {says[0]} with {says[1]}.",
    )
    return Problem(
        name=pick.one(f"{first}_{second}", f"{first}_{second}_gates", f"logic_{first}_{second}"),
        ports=pick.ports([given(n) for n in names], [wire(y)]),
        lead=lead,
        details=(detail,),
        thought=(f"The terms are {inner[0]} and {inner[1]}, joined by {second.upper()}.",),
        body=(f"assign {y} = {joined(second, inner)};",),
    )


def bitwise(pick: Pick, op: str, width: int) -> Problem:
    (a, b), y = pick.pair(), pick.name("out")
    lead = pick.one(
        f"compute the bitwise {op.upper()} of the {width}-bit vectors {a} and {b}",
        f"apply a bitwise {op.upper()} to {a} and {b}",
        f"combine {a} and {b} bit by bit with {article(op.upper())} operation",
        f"output the {op.upper()} of each pair of bits of {a} and {b}",
    )
    detail = pick.one(
        f"The result goes to {y}.", f"Output the result on {y}.", f"The output is {y}.", f"{y} is the result."
    )
    expression = joined(op, [a, b])
    return Problem(
        name=pick.one(f"bitwise_{op}_{width}", f"{op}_vec{width}", f"vec_{op}_{width}bit"),
        ports=pick.ports([given(a, width), given(b, width)], [wire(y, width)]),
        lead=lead,
        details=(detail,),
        thought=(f"A bitwise operator works on all {width} bits at once: {expression}.",),
        body=(f"assign {y} = {expression};",),
    )


def reduction(pick: Pick, op: str, width: int) -> Problem:
    a, y = pick.name("data"), pick.name("bit")
    symbol = ("~" if op in ("nand", "nor", "xnor") else "") + OPERATORS[op]
    lead = pick.one(
        f"compute the {op.upper()} of all {width} bits of {a}",
        f"reduce the vector {a} to one bit with {article(op.upper())} over all its bits",
        f"implement a {width}-input {op.upper()} gate whose inputs are the bits of {a}",
        f"output the {op.upper()} reduction of the {width}-bit input {a}",
    )
    return Problem(
        name=pick.one(f"reduce_{op}_{width}", f"{op}_reduce{width}", f"{op}_of_bits_{width}"),
        ports=pick.ports([given(a, width)], [wire(y)]),
        lead=lead,
        details=(pick.one(f"The result is {y}.", f"The output is {y}.", f"It drives {y}.", f"{y} is the result."),),
        thought=(f"The reduction operator {symbol} does this on all bits of {a}.",),
        body=(f"assign {y} = {symbol}{a};",),
    )


def minterms(pick: Pick, inputs: int, function: int) -> Problem:
    """A truth table: bit i of `function` is the output when the inputs, first one most significant, read i."""
    names, y = pick.series(inputs), pick.name("bit")
    rows = [i for i in range(1 << inputs) if function >> i & 1]
    joined_names = "{" + ", ".join(names) + "}"
    patterns = [format(i, f"0{inputs}b") for i in rows]
    products = [" & ".join(n if bit == "1" else f"~{n}" for n, bit in zip(names, p, strict=True)) for p in patterns]
    one = len(rows) == 1
    lead = pick.one(
        f"implement a boolean function of {listed(names)} with the output {y}",
        f"compute a function {y} of the inputs {listed(names)}",
        f"implement the truth table below with the inputs {listed(names)}",
        f"implement combinational logic from {listed(names)} to {y}",
    )
    detail = pick.one(
        f"{y} is 1 when {joined_names} is {' or '.join(patterns)}, and 0 otherwise.",
        f"{y} is 1 exactly for these values of {joined_names}: {', '.join(patterns)}.",
        f"For {joined_names} equal to {' or '.join(patterns)} the output {y} is 1; for all other values it is 0.",
        f"The output {y} is 1 only if {joined_names} {'equals' if one else 'is one of'} {', '.join(patterns)}.",
    )
    return Problem(
        name=pick.one(f"func{inputs}_{function:x}", f"truth_table_{inputs}_{function:x}", f"sop{inputs}_{function:x}"),
        ports=pick.ports([given(n) for n in names], [wire(y)]),
        lead=lead,
        details=(detail,),
        thought=(
            pick.one("Write one product per row with a 1 and OR them.", "Each row with output 1 gives a product."),
        ),
        body=(f"assign {y} = {' | '.join(f'({p})' for p in products)};",),
    )


WIDTHS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32)
OPS = tuple(OPERATORS)


FAMILIES = (
    Family("gate", gate, grid(op=OPS, inputs=(2, 3, 4), inverted=("none", "first", "last"))),
    Family("two_level", two_level, grid(first=OPS[:5], second=OPS[:5], shape=("2+2", "2+1", "3+2", "2+3"))),
    Family("bitwise", bitwise, grid(op=OPS, width=WIDTHS)),
    Family("reduction", reduction, grid(op=OPS, width=WIDTHS)),
    Family(
        "minterms",
        minterms,
        grid(
            lambda inputs, function: 1 < function < (1 << (1 << inputs)) - 1 and function.bit_count() <= 4,
            inputs=(2, 3),
            function=tuple(range(255)),
        ),
        composed=("function",),
    ),
)
