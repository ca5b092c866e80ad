"""Families that compare: relations of two numbers or with a constant, minimum, maximum, distance, saturation."""

from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import Pick, bits, decimal, given, literal, number, wire

RELATIONS = {
    "equal": ("==", "equal to"),
    "different": ("!=", "different from"),
    "less": ("<", "less than"),
    "at_most": ("<=", "less than or equal to"),
    "greater": (">", "greater than"),
    "at_least": (">=", "greater than or equal to"),
}


def compare(pick: Pick, relation: str, width: int, kind: str) -> Problem:
    (a, b), y = pick.pair(), pick.name("bit")
    symbol, words = RELATIONS[relation]
    signed = kind == "signed"
    left, right = (f"$signed({a})", f"$signed({b})") if signed else (a, b)
    lead = pick.one(
        f"compare {a} and {b} and set {y} to 1 when {a} is {words} {b}",
        f"output 1 on {y} if {a} is {words} {b}, and 0 otherwise",
        f"implement {bits(width)} comparator whose output {y} is 1 when {a} is {words} {b}",
    )
    detail = pick.one(
        f"The inputs are {kind} {width}-bit numbers.",
        f"{a} and {b} are {kind}.",
        f"Treat {a} and {b} as {kind} numbers.",
    )
    return Problem(
        name=pick.one(f"cmp_{relation}_{width}", f"{relation}_{kind}_{width}", f"compare_{relation}{width}"),
        ports=pick.ports([given(a, width), given(b, width)], [wire(y)]),
        lead=lead,
        details=(detail,),
        thought=(f"The comparison is {left} {symbol} {right}.",),
        body=(f"assign {y} = {left} {symbol} {right};",),
        directed=(f"if ($urandom % 4 == 0) {b} = {a};", f"if ($urandom % 4 == 0) {b} = {a} + 1;"),
    )


def threshold(pick: Pick, relation: str, width: int, value: int) -> Problem:
    a, y = pick.name("data"), pick.name("bit")
    symbol, words = RELATIONS[relation]
    lead = pick.one(
        f"output 1 on {y} when {a} is {words} {value}, and 0 otherwise",
        f"compare the unsigned input {a} with {value}: {y} is 1 when {a} is {words} it",
        f"set {y} to 1 exactly when the {width}-bit unsigned input {a} is {words} {value}",
    )
    return Problem(
        name=pick.one(f"threshold_{relation}_{value}", f"{relation}_{value}_w{width}", f"check_{relation}_{value}"),
        ports=pick.ports([given(a, width)], [wire(y)]),
        lead=lead,
        details=(),
        thought=(f"The comparison is {a} {symbol} {decimal(width, value)}.",),
        body=(f"assign {y} = {a} {symbol} {decimal(width, value)};",),
        directed=(f"if ($urandom % 2 == 0) {a} = {value} - 1 + $urandom % 3;",),
    )


def extreme(pick: Pick, op: str, width: int, kind: str) -> Problem:
    (a, b), y = pick.pair(), pick.name("out")
    symbol, word = ("<", "smaller") if op == "min" else (">", "larger")
    test = f"$signed({a}) {symbol} $signed({b})" if kind == "signed" else f"{a} {symbol} {b}"
    lead = pick.one(
        f"output the {word} of {a} and {b} on {y}",
        f"compute the {op}imum of the {kind} inputs {a} and {b} on {y}",
        f"drive {y} with the {op}imum of {a} and {b}",
    )
    detail = pick.one(
        f"The inputs are {kind} {width}-bit numbers.", f"{a} and {b} are {kind}.", f"Treat both as {kind} numbers."
    )
    return Problem(
        name=pick.one(f"{op}_{width}", f"{op}imum_{kind}_{width}", f"{op}2_{width}"),
        ports=pick.ports([given(a, width), given(b, width)], [wire(y, width)]),
        lead=lead,
        details=(detail,),
        thought=(f"Choose {a} when {test}.",),
        body=(f"assign {y} = {test} ? {a} : {b};",),
        directed=(f"if ($urandom % 4 == 0) {b} = {a} + 1;",),
    )


def distance(pick: Pick, kind: str, width: int) -> Problem:
    """The absolute difference, or a sum or difference that saturates, of unsigned numbers."""
    (a, b), y = pick.pair(), pick.name("out")
    top = literal(width, (1 << width) - 1)
    if kind == "absolute":
        lead = pick.one(
            f"compute the absolute difference of the unsigned inputs {a} and {b} on {y}",
            f"output on {y} the distance between the unsigned numbers {a} and {b}",
        )
        details = [
            pick.one(
                "Subtract the smaller number from the larger one.",
                f"That is {a} - {b} or {b} - {a}, whichever is not negative.",
            )
        ]
        body: tuple[str, ...] = (f"assign {y} = {a} > {b} ? {a} - {b} : {b} - {a};",)
    elif kind == "saturating_sub":
        lead = pick.one(
            f"subtract the unsigned {b} from {a} with saturation and output the result on {y}",
            f"compute {a} minus {b} on {y}, saturating at 0",
        )
        details = [
            pick.one(
                f"If {b} is larger than {a}, {y} is 0.",
                f"{y} is 0 instead of a negative result. The inputs are unsigned.",
            )
        ]
        body = (f"assign {y} = {a} > {b} ? {a} - {b} : {literal(width, 0)};",)
    else:
        lead = pick.one(
            f"add the unsigned {a} and {b} with saturation and output the sum on {y}",
            f"compute {a} plus {b} on {y}, saturating at the largest value",
        )
        value = number((1 << width) - 1)
        details = [
            pick.one(
                f"If the sum does not fit in {width} bits, {y} is {value}.",
                f"A sum above {value} gives {value}. The inputs are unsigned.",
            )
        ]
        body = (
            f"wire [{width}:0] total;",
            "",
            f"assign total = {a} + {b};",
            f"assign {y} = total[{width}] ? {top} : total[{width - 1}:0];",
        )
    return Problem(
        name=pick.one(
            f"{kind}_{width}",
            f"{kind}_w{width}",
            {"absolute": "abs_diff", "saturating_sub": "sat_sub", "saturating_add": "sat_add"}[kind] + f"_{width}",
        ),
        ports=pick.ports([given(a, width), given(b, width)], [wire(y, width)]),
        lead=lead,
        details=tuple(details),
        thought=(
            f"Bit {width} of the wide sum is the overflow."
            if kind == "saturating_add"
            else f"Compare {a} and {b} first.",
        ),
        body=body,
    )


WIDTHS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32)
LIMITS = (2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 20, 25, 50, 99, 100, 128, 200)


FAMILIES = (
    Family(
        "compare",
        compare,
        grid(
            lambda relation, kind, **_: kind == "unsigned" or relation not in ("equal", "different"),
            relation=tuple(RELATIONS),
            width=WIDTHS,
            kind=("unsigned", "signed"),
        ),
    ),
    Family(
        "threshold",
        threshold,
        grid(
            lambda width, value, **_: value + 1 < 1 << width, relation=tuple(RELATIONS), width=WIDTHS[1:9], value=LIMITS
        ),
    ),
    Family("extreme", extreme, grid(op=("min", "max"), width=WIDTHS, kind=("unsigned", "signed"))),
    Family("distance", distance, grid(kind=("absolute", "saturating_sub", "saturating_add"), width=WIDTHS)),
)
