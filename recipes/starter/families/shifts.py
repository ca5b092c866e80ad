"""Families that shift and rotate a word, by a constant or by a variable amount."""

from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import Pick, address_bits, bits, given, wire

KINDS = ("left", "right", "arithmetic", "rotate_left", "rotate_right")


def _says(kind: str) -> tuple[str, str]:
    """The verb phrase and the rule for the bits that become free."""
    return {
        "left": ("shift {a} left", "Zeros enter from the right."),
        "right": ("logically shift {a} right", "Zeros enter from the left."),
        "arithmetic": ("arithmetically shift {a} right", "The sign bit is copied into the upper bits."),
        "rotate_left": ("rotate {a} left", "Bits that leave at the top return at the bottom."),
        "rotate_right": ("rotate {a} right", "Bits that leave at the bottom return at the top."),
    }[kind]


def fixed(pick: Pick, kind: str, width: int, amount: int) -> Problem:
    a, y = pick.name("data"), pick.name("out")
    phrase, rule = _says(kind)
    keep = width - amount
    high, low = f"{a}[{width - 1}:{amount}]", f"{a}[{keep - 1}:0]"
    expression = {
        "left": f"{a} << {amount}",
        "right": f"{a} >> {amount}",
        "arithmetic": f"$signed({a}) >>> {amount}",
        "rotate_left": f"{{{low}, {a}[{width - 1}:{keep}]}}",
        "rotate_right": f"{{{a}[{amount - 1}:0], {high}}}",
    }[kind]
    places = f"{amount} place{'s' if amount > 1 else ''}"
    does = phrase.format(a=pick.one(a, f"the {width}-bit input {a}"))
    lead = pick.one(
        f"{does} by {places} and output it on {y}",
        f"{does} by {places} to form {y}",
        f"{does} by {amount} and drive {y} with the result",
    )
    return Problem(
        name=pick.one(
            f"{kind}_{amount}_{width}",
            f"shift_{kind}{amount}" if "rotate" not in kind else f"{kind}{amount}",
            f"{kind}_by_{amount}",
        ),
        ports=pick.ports([given(a, width)], [wire(y, width)]),
        lead=lead,
        details=(rule,),
        thought=(f"{y} is {expression}.",),
        body=(f"assign {y} = {expression};",),
    )


def barrel(pick: Pick, kind: str, width: int, amount_bits: int) -> Problem:
    a, n, y = pick.name("data"), pick.name("amount"), pick.name("out")
    phrase, rule = _says(kind)
    expression = {
        "left": f"{a} << {n}",
        "right": f"{a} >> {n}",
        "arithmetic": f"$signed({a}) >>> {n}",
        "rotate_left": f"({a} << {n}) | ({a} >> ({width} - {n}))",
        "rotate_right": f"({a} >> {n}) | ({a} << ({width} - {n}))",
    }[kind]
    does = phrase.format(a=pick.one(a, f"the {width}-bit input {a}"))
    lead = pick.one(
        f"{does} by {n} places and output it on {y}",
        f"{does} by the amount {n} and drive {y} with the result",
        f"implement {bits(width)} barrel shifter: {does} by {n} to form {y}",
    )
    return Problem(
        name=pick.one(f"barrel_{kind}_{width}", f"{kind}_var_{width}", f"shifter_{kind}_{width}"),
        ports=pick.ports([given(a, width), given(n, amount_bits)], [wire(y, width)]),
        lead=lead,
        details=(rule, pick.one(f"The amount is 0 to {(1 << amount_bits) - 1}.", f"{n} is unsigned.")),
        thought=(f"{y} is {expression}.",),
        body=(f"assign {y} = {expression};",),
    )


FAMILIES = (
    Family(
        "shift",
        fixed,
        grid(
            lambda width, amount, **_: amount < width - 1,
            kind=KINDS,
            width=(4, 5, 6, 7, 8, 10, 12, 16, 32),
            amount=(1, 2, 3, 4, 5, 6),
        ),
    ),
    Family(
        "barrel",
        barrel,
        grid(
            lambda width, amount_bits, **_: amount_bits <= address_bits(width),
            kind=KINDS,
            width=(4, 8, 16, 32),
            amount_bits=(1, 2, 3, 4, 5),
        ),
    ),
)
