"""A plan for a person to read: a block a stage, each figure with what it is of."""

from collections.abc import Iterator

from pipeline.plan.planned import GIB, Stage

STEPS = 1000
"""Of a run whose length the recipe leaves to its data."""
HOW = (
    "time: cycles of XLA's cost model and bytes between chips, nothing overlapped, kernels it does not know left out;",
    "      one published run took 1.21 s where this gave 1.11. Memory is the compiler's own count.",
)


def blocks(stages: list[Stage], parameters: int, steps: int | None) -> list[str]:
    """The lines of every stage; `parameters` of the model, `steps` of the run where they are known."""
    lines: list[str] = []
    for stage in stages:
        chip = stage.slice.chip
        price = f"${stage.price.usd:,.2f} an hour ({stage.price.source})"
        chips = "chip" if stage.slice.chips == 1 else "chips"
        lines.append(f"{stage.name} on {stage.slice.name}: {stage.slice.chips} {chips} of {chip.memory:g} GiB, {price}")
        lines += (f"  {name:<9}{what}" for name, what in _facts(stage, parameters, steps))
    return [*lines, *HOW] if any(stage.figures for stage in stages) else lines


def _facts(stage: Stage, parameters: int, steps: int | None) -> Iterator[tuple[str, str]]:
    if refused := stage.refused:
        yield "mesh", f"none: {refused['what']}; {refused['fix']}"
        return
    sizes = " x ".join(f"{axis} {size}" for axis, size in stage.sizes["mesh"].items())
    yield "mesh", f"{sizes}{f' ({why})' if (why := stage.sizes['why']) else ''}"
    yield "memory", _memory(stage)
    if stage.figures is not None:
        yield from (_training if stage.name == "train" else _serving)(stage, parameters, steps)


def _memory(stage: Stage) -> str:
    needed, room = stage.needed / GIB, stage.room / GIB
    left = f"{room - needed:.1f} left" if stage.fits else f"{needed - room:.1f} TOO MUCH"
    if stage.figures is None:
        left = "activations and caches: --compile asks the compiler" if stage.fits else left
        return f"{needed:.3g} GiB of weights a chip, {room:.1f} to use; {left}"
    return f"{needed:.3g} GiB a chip, {room:.1f} to use: {'fits, ' if stage.fits else 'does not fit, '}{left}"


def _training(stage: Stage, parameters: int, steps: int | None) -> Iterator[tuple[str, str]]:
    figures = stage.figures or {}
    seconds, tokens, step = stage.seconds("step"), figures["tokens"], figures["step"]
    parts = f"{step['compute']:.2f} computing + {step['links']:.2f} between chips"
    share = 4 * parameters * tokens / (seconds * stage.slice.chips * stage.slice.chip.flops)
    rate = f"{tokens / seconds:,.0f} tokens/s, MFU {share:.0%} (4 N)"
    yield "step", f"{seconds:.2f} s of {tokens:,} tokens ({parts}): {rate}"
    count = steps or STEPS
    said = f"{count:,} steps" if steps else f"every {count:,} steps"
    yield (
        "run",
        f"{said}: {_time(count * seconds)}, ${stage.price.of(count * seconds):,.2f}; loading and compiling besides",
    )


def _serving(stage: Stage, parameters: int, steps: int | None) -> Iterator[tuple[str, str]]:
    figures = stage.figures or {}
    rate, dispatch = figures["tokens"] / stage.seconds("decode"), stage.seconds("decode")
    each = 1000 * dispatch / figures["steps"]
    cost = f"{rate:,.0f} tokens/s, ${stage.price.of(1e6 / rate):.2f} a million"
    yield "decode", f"{each:.1f} ms a step of {figures['slots']} sequences: {cost}"
    yield "prefill", f"{stage.seconds('prefill'):.2f} s for a prompt of {figures['prompt']:,} tokens"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{seconds / 60:.1f} min"
