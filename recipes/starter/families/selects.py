"""Families that choose: multiplexers, demultiplexers, bit selection, decoders, priority encoders, comparisons."""

from recipes.starter.problem import Family, Problem, grid
from recipes.starter.words import Pick, address_bits, bits, given, literal, reg, wire


def mux(pick: Pick, ways: int, width: int, order: str) -> Problem:
    """`order` says which input select value 0 takes: the first, or the last."""
    names, s, y = pick.series(ways), pick.name("select"), pick.name("out")
    chosen = names if order == "first" else names[::-1]
    size, article = address_bits(ways), "an" if ways == 8 else "a"
    lead = pick.one(
        f"implement {bits(width)} wide {ways}-to-1 multiplexer with the select input {s}",
        f"implement {article} {ways}-to-1 mux of {width}-bit inputs, selected by {s}, with the output {y}",
        f"select one of {ways} inputs with {s} and output it on {y}",
        f"choose among {ways} inputs by {s} and drive {y} with the chosen one",
    )
    if ways == 2:
        details = [
            pick.one(
                f"When {s} is 0, {y} is {chosen[0]}; when {s} is 1, {y} is {chosen[1]}.",
                f"{s}=0 selects {chosen[0]} and {s}=1 selects {chosen[1]}.",
                f"The output {y} is {chosen[1]} if {s} is 1 and {chosen[0]} if {s} is 0.",
            )
        ]
        body: tuple[str, ...] = (f"assign {y} = {s} ? {chosen[1]} : {chosen[0]};",)
    else:
        details = [
            pick.one(
                f"{s}=0 selects {chosen[0]}, {s}=1 selects {chosen[1]}, and so on up to "
                f"{chosen[-1]} for {s}={ways - 1}.",
                f"{y} is {chosen[0]} when {s} is 0, {chosen[1]} when it is 1, and so on; "
                f"{chosen[-1]} when it is {ways - 1}.",
                f"The select values 0 to {ways - 1} choose {', '.join(chosen)} in this order.",
            )
        ]
        if ways < 1 << size:
            details.append(
                pick.one(f"Larger values of {s} also select {chosen[-1]}.", f"For larger {s} it is {chosen[-1]}.")
            )
        body = (
            "always @(*)",
            f"  case ({s})",
            *(f"    {literal(size, i)}: {y} = {name};" for i, name in enumerate(chosen[:-1])),
            f"    default: {y} = {chosen[-1]};",
            "  endcase",
        )
    return Problem(
        name=pick.one(f"mux{ways}_{width}", f"mux_{ways}to1_{width}", f"selector{ways}x{width}"),
        ports=pick.ports(
            [given(s, size), *(given(n, width) for n in names)], [reg(y, width) if ways > 2 else wire(y, width)]
        ),
        lead=lead,
        details=tuple(details),
        thought=(f"{s} = 0 gives {chosen[0]}." if ways == 2 else f"A case on {s} lists the {ways} inputs.",),
        body=body,
    )


def demux(pick: Pick, ways: int, width: int, idle: str) -> Problem:
    names, a, s = pick.series(ways), pick.name("data"), pick.name("select")
    size = address_bits(ways)
    rest = literal(width, 0) if idle == "zero" else literal(width, (1 << width) - 1)
    says = (
        "0" if width == 1 and idle == "zero" else "1" if width == 1 else f"all {'zeros' if idle == 'zero' else 'ones'}"
    )
    lead = pick.one(
        f"implement {bits(width)} wide 1-to-{ways} demultiplexer from {a} with the select input {s}",
        f"route the input {a} to one of {ways} outputs, selected by {s}",
        f"implement a demux: {s} chooses which of {ways} outputs receives {a}",
    )
    details = [
        pick.one(
            f"{s}=0 selects {names[0]} and {s}={ways - 1} selects {names[-1]}.",
            f"Output {names[0]} belongs to {s}=0, {names[1]} to {s}=1, and so on.",
        ),
        pick.one(f"The outputs that are not selected are {says}.", f"All other outputs are {says}."),
    ]
    return Problem(
        name=pick.one(f"demux{ways}_{width}", f"demux_1to{ways}_{width}", f"router{ways}x{width}"),
        ports=pick.ports([given(s, size), given(a, width)], [wire(n, width) for n in names]),
        lead=lead,
        details=tuple(details),
        thought=(f"Each output compares {s} with its number.",),
        body=tuple(f"assign {n} = {s} == {literal(size, i)} ? {a} : {rest};" for i, n in enumerate(names)),
    )


def bit_select(pick: Pick, width: int, order: str, invert: str) -> Problem:
    a, s, y = pick.name("data"), pick.name("select"), pick.name("bit")
    size = address_bits(width)
    index = s if order == "up" else f"{width - 1} - {s}"
    tilde = "~" if invert == "inverted" else ""
    lead = pick.one(
        f"output on {y} {'the complement of ' if tilde else ''}one bit of the {width}-bit input {a}, selected by {s}",
        f"select one of the {width} bits of {a} with {s} and drive {y} with {'its complement' if tilde else 'it'}",
        f"implement {bits(width)[:-4]}-to-1 mux on the bits of {a} with the select input {s} "
        f"and the {'inverted ' if tilde else ''}output {y}",
    )
    top = width - 1
    detail = (
        pick.one(f"{s}=0 selects {a}[0], {s}=1 selects {a}[1], and so on.", f"The bit number is {s}: 0 selects {a}[0].")
        if order == "up"
        else pick.one(
            f"{s}=0 selects {a}[{top}], {s}=1 selects {a}[{top - 1}], and so on.",
            f"Bits are counted from the top: {s}=0 selects {a}[{top}].",
        )
    )
    return Problem(
        name=pick.one(f"bit_select_{width}", f"bitmux{width}", f"pick_bit_{width}"),
        ports=pick.ports([given(a, width), given(s, size)], [wire(y)]),
        lead=lead,
        details=(detail,),
        thought=(f"Index the vector: {tilde}{a}[{index}].",),
        body=(f"assign {y} = {tilde}{a}[{index}];",),
    )


def decoder(pick: Pick, inputs: int, enable: str, active: str) -> Problem:
    a, y = pick.name("address"), pick.name("out")
    en = pick.name("enable") if enable != "none" else ""
    level, low, width = (1 if enable == "high" else 0), active == "low", 1 << inputs
    shifted = f"{literal(width, 1)} << {a}"
    lead = pick.one(
        f"implement a {inputs}-to-{width} decoder from {a} to {y}",
        f"decode the {inputs}-bit input {a} to the {width}-bit {'one-cold' if low else 'one-hot'} output {y}",
        f"implement a decoder with the input {a} and {width} outputs in {y}",
    )
    details = [
        pick.one(
            f"Bit {a} of {y} is {0 if low else 1} and all other bits are {1 if low else 0}.",
            f"Only bit number {a} of {y} is {0 if low else 1}; the others are {1 if low else 0}.",
            f"The outputs are active {active}: {y}[i] is {0 if low else 1} exactly when {a} equals i.",
        )
    ]
    expression = f"~({shifted})" if low else shifted
    if en:
        off = "ones" if low else "zeros"
        details.append(
            pick.one(
                f"When {en} is {1 - level}, {y} is all {off}.",
                f"{en} is an active-{enable} enable; when it is {1 - level}, every bit of {y} is {1 if low else 0}.",
                f"The decoder works only when {en} is {level}; otherwise all bits of {y} are {1 if low else 0}.",
            )
        )
        idle = literal(width, (1 << width) - 1 if low else 0)
        expression = f"{en if level else '!' + en} ? {expression} : {idle}"
    return Problem(
        name=pick.one(f"decoder_{inputs}_{width}", f"dec{inputs}to{width}", f"decode_{width}"),
        ports=pick.ports([*([given(en)] if en else []), given(a, inputs)], [wire(y, width)]),
        lead=lead,
        details=tuple(details),
        thought=(f"Shift a single 1 left by {a}" + (" and invert." if low else "."),),
        body=(f"assign {y} = {expression};",),
    )


def priority_encoder(pick: Pick, inputs: int, first: str, valid: str) -> Problem:
    a, y = pick.name("data"), pick.one("pos", "idx", "index", "code", "num")
    v = pick.name("valid") if valid == "valid" else ""
    size = address_bits(inputs)
    lead = pick.one(
        f"implement a priority encoder for the {inputs}-bit input {a} with the output {y}",
        f"find the {first} bit of {a} that is 1 and output its position on {y}",
        f"output on {y} the position of the {first} 1 in the {inputs}-bit input {a}",
    )
    details = [
        pick.one(
            f"The {first} bit that is 1 wins.",
            f"If several bits are 1, the {first} one has priority.",
            f"Priority goes to the {first} bit.",
        ),
        pick.one(f"When no bit is 1, {y} is 0.", f"{y} is 0 if {a} is 0."),
    ]
    if v:
        details.append(pick.one(f"{v} is 1 when any bit of {a} is 1.", f"The output {v} tells whether {a} is not 0."))
    order = range(inputs) if first == "lowest" else range(inputs - 1, -1, -1)
    lines = [f"if ({a}[{i}]) {y} = {literal(size, i)};" for i in order]
    body = [
        "always @(*) begin",
        *(f"  {'else ' if n else ''}{line}" for n, line in enumerate(lines)),
        f"  else {y} = {literal(size, 0)};",
        "end",
    ]
    return Problem(
        name=pick.one(f"priority_encoder_{inputs}", f"prio_enc{inputs}", f"{first}_one_{inputs}"),
        ports=pick.ports([given(a, inputs)], [reg(y, size), *([wire(v)] if v else [])]),
        lead=lead,
        details=tuple(details),
        thought=(f"Test the bits from the {first} on in an if chain.",),
        body=(*body, *(("", f"assign {v} = |{a};") if v else ())),
        directed=(f"if ($urandom % 2 == 0) {a} = 1 << ($urandom % {inputs});",),
    )


WIDTHS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32)


FAMILIES = (
    Family("mux", mux, grid(ways=(2, 3, 4, 5, 6, 8), width=(1, *WIDTHS), order=("first", "last"))),
    Family("demux", demux, grid(ways=(2, 3, 4), width=(1, *WIDTHS[:10]), idle=("zero", "ones"))),
    Family("bit_select", bit_select, grid(width=(2, 4, 8, 16, 32), order=("up", "down"), invert=("plain", "inverted"))),
    Family("decoder", decoder, grid(inputs=(2, 3, 4), enable=("none", "high", "low"), active=("high", "low"))),
    Family(
        "priority_encoder",
        priority_encoder,
        grid(inputs=(3, 4, 5, 6, 7, 8), first=("lowest", "highest"), valid=("none", "valid")),
    ),
)
