"""The five stages as commands: of a recipe, or from flags alone on files that other tools made."""

from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import UserError
from pipeline import alone
from pipeline.commands import run_stage
from pipeline.options import RUNS, Debug, MaybeRecipe, Model, Options, Out, Runs, Sets, given, guarded, place


def _stage(
    stage: str, options: Options, flags: dict[str, Any], required: tuple[str, ...], config: Any, inputs: dict[str, Any]
) -> None:
    """One stage of a recipe; or, without a recipe, `config` and `inputs` as the stage's `flags` give them."""

    def work() -> int:
        flagged = given(**flags, out=options.out)
        if options.recipe is not None:
            if flagged:
                names = ", ".join(f"--{name}" for name in flagged)
                raise UserError(f"the recipe says what {stage} reads and writes", where=names, fix="leave out either")
            return run_stage(place(options.recipe, options.sets, options.runs, options.debug), stage)
        lacking = [f"--{name}" for name in required if name not in flagged]
        if lacking:
            raise UserError(f"without a recipe, {', '.join(lacking)} must be given", fix=f"see tapeout {stage} --help")
        alone.check_paths({f"--{name}": str(value) for name, value in flagged.items() if name in _PATHS[stage]})
        out = (options.out or Path(stage)).absolute()
        step, hardware = alone.stage_step(stage, config, given(**inputs), options.sets or (), out)
        start = alone.serve_alone if stage == "serve" else alone.run_alone
        return start(step, hardware, options.debug)

    guarded(work, options.debug)


_PATHS = {
    "data": ("model", "input"),
    "train": ("model", "data"),
    "convert": ("base", "adapter"),
    "serve": ("model",),
    "eval": ("benchmark",),
}
"""Flags that name a file or folder which must exist."""


def data(
    recipe: MaybeRecipe = None,
    model: Model = None,
    rows: Annotated[str | None, typer.Option("--input", metavar="FILE", help="Rows to prepare")] = None,
    kind: Annotated[str | None, typer.Option("--format", help="What a row looks like")] = None,
    out: Out = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 1: rows to token ids and loss masks."""
    flags = {"model": model, "input": rows, "format": kind}
    config = {"sources": [given(path=rows, format=kind)]}
    options = Options(recipe, sets, runs, out, debug)
    _stage("data", options, flags, ("model", "input", "out"), config, {"model": model})


def train(
    recipe: MaybeRecipe = None,
    model: Model = None,
    rows: Annotated[str | None, typer.Option("--data", metavar="DIR", help="Result of tapeout data")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16")] = None,
    out: Out = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 2: fine-tune."""
    inputs = {"model": model, "data": rows, "dtype": dtype}
    _stage("train", Options(recipe, sets, runs, out, debug), inputs, ("model", "data", "out"), {}, inputs)


def convert(
    recipe: MaybeRecipe = None,
    base: Annotated[str | None, typer.Option(metavar="DIR", help="Base model folder")] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR", help="Result of tapeout train, or a PEFT adapter")
    ] = None,
    out: Out = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 3: merge into a model that others load."""
    inputs = {"base": base, "adapter": adapter}
    _stage("convert", Options(recipe, sets, runs, out, debug), inputs, ("base", "adapter", "out"), {}, inputs)


def serve(
    recipe: MaybeRecipe = None,
    model: Model = None,
    port: Annotated[int | None, typer.Option(help="0: any free port")] = None,
    name: Annotated[str | None, typer.Option(help="Model name that clients use; the folder's unless given")] = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 4: serve until stopped, over an OpenAI-compatible API."""
    flags = {"model": model, "port": port, "name": name}
    inputs = {"model": model, "name": name or (model and Path(model).resolve().name)}
    _stage("serve", Options(recipe, sets, runs, None, debug), flags, ("model",), given(port=port), inputs)


def evaluate(
    recipe: MaybeRecipe = None,
    benchmark: Annotated[str | None, typer.Option(metavar="DIR", help="Benchmark in VerilogEval's layout")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="OpenAI-compatible server, ending in /v1")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model name to ask for")] = None,
    samples: Annotated[int | None, typer.Option(help="Completions per problem")] = None,
    completions: Annotated[str | None, typer.Option(metavar="FILE", help="Score stored completions instead")] = None,
    out: Out = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 5: ask for completions, simulate them, score."""
    inputs = {"endpoint": endpoint, "model": model}
    config = given(benchmark=benchmark, samples=samples, completions=completions)
    required = ("benchmark", "out") if completions else ("benchmark", "endpoint", "model", "out")
    _stage("eval", Options(recipe, sets, runs, out, debug), config | inputs, required, config, inputs)
