"""The five stages as commands: of a recipe, or from flags alone on files that other tools made."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import UserError
from models.config import HardwareConfig
from pipeline.cli import data_show
from pipeline.cli.commands import run_stage
from pipeline.cli.convert_preview import preview_alone, preview_recipe
from pipeline.cli.options import RUNS, Debug, MaybeRecipe, Model, Options, Out, Runs, Sets, given, guarded, open_recipe
from pipeline.run import alone
from pipeline.run.graph import Step


def _stage(
    stage: str,
    options: Options,
    flags: dict[str, Any],
    required: tuple[str, ...],
    config: Any,
    inputs: dict[str, Any],
    start: Callable[[Step, HardwareConfig, bool], int] = alone.run_alone,
) -> None:
    """One stage of a recipe; or, without a recipe, `config` and `inputs` as the stage's `flags` give them."""

    def work() -> int:
        flagged = given(**flags, out=options.out)
        if options.recipe is not None:
            if flagged:
                names = ", ".join(f"--{name}" for name in flagged)
                raise UserError(f"the recipe says what {stage} reads and writes", where=names, fix="leave out either")
            return run_stage(open_recipe(options.recipe, options.sets, options.runs, options.debug), stage)
        lacking = [f"--{name}" for name in required if name not in flagged]
        if lacking:
            raise UserError(f"without a recipe, {', '.join(lacking)} must be given", fix=f"see tapeout {stage} --help")
        named = {f"--{name}": str(value) for name, value in flagged.items() if name in _PATHS[stage]}
        alone.check_paths({flag: path for flag, path in named.items() if "://" not in path})
        step, hardware = alone.stage_step(stage, config, given(**inputs), options.sets or (), options.out)
        return start(step, hardware, options.debug)

    guarded(work, options.debug)


_PATHS = {
    "data": ("model", "input"),
    "train": ("model", "data", "adapter"),
    "convert": ("base", "adapter", "probes"),
    "serve": ("model", "adapter"),
    "eval": ("benchmark",),
}
"""Flags that name a file or folder which must exist."""


def data(
    recipe: MaybeRecipe = None,
    model: Model = None,
    rows: Annotated[str | None, typer.Option("--input", metavar="FILE", help="Rows to prepare")] = None,
    kind: Annotated[str | None, typer.Option("--format", help="What a row looks like")] = None,
    show: Annotated[
        int | None,
        typer.Option("--show", metavar="N", min=1, help="Print N conversations with their mask; write nothing"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --show: a line each of ids, mask and text")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="With --show: a page instead")] = None,
    out: Out = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 1: rows to token ids and loss masks."""
    flags = {"model": model, "input": rows, "format": kind}
    config = {"sources": [given(path=rows, format=kind or "auto")]}
    options = Options(recipe, sets, runs, out, debug)
    if show is None and not as_json and html is None:
        return _stage("data", options, flags, ("model", "input", "out"), config, {"model": model})
    view = data_show.View(show or data_show.SHOWN, as_json, html)
    if recipe is not None and not given(**flags, out=out):
        return guarded(lambda: view.of_recipe(options), debug)
    if out is not None:
        return guarded(data_show.refuse_out, debug)
    _stage(
        "data",
        options,
        flags,
        ("model", "input"),
        config,
        {"model": model},
        lambda step, _, debug: view.of_step(step, debug),
    )


def train(
    recipe: MaybeRecipe = None,
    model: Model = None,
    rows: Annotated[str | None, typer.Option("--data", metavar="DIR", help="Result of tapeout data")] = None,
    adapter: Annotated[str | None, typer.Option(metavar="DIR", help="PEFT adapter to go on from")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16")] = None,
    out: Out = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 2: fine-tune."""
    inputs = {"model": model, "data": rows, "dtype": dtype}
    flags, config = {**inputs, "adapter": adapter}, given(adapter=adapter)
    _stage("train", Options(recipe, sets, runs, out, debug), flags, ("model", "data", "out"), config, inputs)


def convert(
    recipe: MaybeRecipe = None,
    base: Annotated[str | None, typer.Option(metavar="DIR", help="Base model folder")] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR", help="Result of tapeout train, or a PEFT adapter")
    ] = None,
    probes: Annotated[
        str | None, typer.Option(metavar="DIR", help="Result of tapeout data: verify the merge on its prompts")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Checkpoint to convert; the last unless given")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print sizes, memory and disk; write nothing")
    ] = False,
    out: Out = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 3: merge into a model that others load."""
    inputs = {"base": base, "adapter": adapter, "probes": probes}
    sets = [*(sets or []), *([f"convert.step={step}"] if step is not None else [])]
    options = Options(recipe, sets, runs, out, debug)
    if dry_run and recipe is not None and not given(**inputs, out=out):
        return guarded(lambda: preview_recipe(open_recipe(recipe, sets, runs, debug)), debug)
    start = preview_alone if dry_run else alone.run_alone
    _stage("convert", options, inputs, ("base", "adapter", "out"), {}, inputs, start)


def serve(
    recipe: MaybeRecipe = None,
    model: Model = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR", help="PEFT adapter to apply beside the weights, unmerged")
    ] = None,
    port: Annotated[int | None, typer.Option(help="0: any free port")] = None,
    name: Annotated[str | None, typer.Option(help="Model name that clients use; the folder's unless given")] = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 4: serve until stopped, over an OpenAI-compatible API."""
    if recipe is not None and port is not None:
        sets, port = [*(sets or []), f"serve.port={port}"], None
    flags = {"model": model, "adapter": adapter, "port": port, "name": name}
    inputs = {"model": model, "adapter": adapter, "name": name or (model and Path(model).resolve().name)}
    options = Options(recipe, sets, runs, None, debug)
    _stage("serve", options, flags, ("model",), given(port=port), inputs, alone.serve_alone)


def evaluate(
    recipe: MaybeRecipe = None,
    benchmark: Annotated[str | None, typer.Option(metavar="DIR", help="Benchmark in VerilogEval's layout")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="OpenAI-compatible server, ending in /v1")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model name to ask for")] = None,
    samples: Annotated[int | None, typer.Option(help="Completions per problem")] = None,
    completions: Annotated[str | None, typer.Option(metavar="FILE", help="Score stored completions instead")] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Only run the references: which problems can be graded here?")
    ] = False,
    unsafe: Annotated[
        bool, typer.Option("--unsafe-no-sandbox", help="Run generated code unconfined: only code you trust")
    ] = False,
    out: Out = None,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Stage 5: ask for completions, simulate them, score."""
    inputs = {"endpoint": endpoint, "model": model}
    if unsafe:
        sets = [*(sets or []), "eval.sandbox=none"]
    config = given(benchmark=benchmark, samples=samples, completions=completions)
    flags = config | inputs | given(**{"self-test": self_test or None})
    required = ("benchmark", "out") if completions or self_test else ("benchmark", "endpoint", "model", "out")
    _stage(
        "eval",
        Options(recipe, sets, runs, out, debug),
        flags,
        required,
        config | given(self_test=self_test or None),
        inputs,
    )
