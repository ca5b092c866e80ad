"""The command line: `tapeout` and `python -m pipeline`. Reads arguments; the work is in commands.py and alone.py."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import UserError
from common.files import write_text
from common.progress import log
from common.stage import report
from pipeline import alone, checks
from pipeline.children import ChildFailed, Interrupted, interruptible
from pipeline.commands import Workplace, run_recipe, run_stage
from pipeline.copying import copied
from pipeline.gate import gate_runs
from pipeline.graph import STAGES
from pipeline.recipe import Recipe, find_recipe, load_recipe, resolved_yaml, shipped_recipes

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune, serve, simulate and score a model: one YAML recipe, one command.",
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe file, or the name of a shipped one")]
MaybeRecipe = Annotated[
    str | None, typer.Argument(metavar="[RECIPE]", help="Run this stage of a recipe; left out: from flags alone")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. train.lora.rank=16")
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where results are kept")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks")]
First = Annotated[str, typer.Option("--from", metavar="STAGE", help=f"First of {', '.join(STAGES)}")]
Last = Annotated[str, typer.Option("--to", metavar="STAGE", help="Last stage to run")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="New folder for the result")]
RUNS = Path("runs")


def guarded(work: Callable[[], int], debug: bool) -> None:
    """Do `work` and exit with its code; a user's error is one screen and a 2, a signal is 130 or 143."""
    debug = debug or os.environ.get("TAPEOUT_DEBUG") == "1"
    try:
        with interruptible():
            code = work()
    except Interrupted as interrupted:
        log("stopped; nothing half-written, the same command goes on from here")
        code = interrupted.exit_code
    except ChildFailed as failed:
        log(str(failed))
        code = failed.exit_code
    except Exception as error:
        code = report(error, debug)
    raise SystemExit(code)


def _place(recipe: str, sets: list[str] | None, runs: Path, debug: bool) -> Workplace:
    called = " ".join([recipe, *(f"--set {s}" for s in sets or ()), *([] if runs == RUNS else [f"--runs {runs}"])])
    return Workplace(load_recipe(recipe, sets or ()), called, runs.absolute(), debug)


@app.command()
def run(
    recipe: RecipeName,
    sets: Sets = None,
    first: First = STAGES[0],
    last: Last = STAGES[-1],
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Run a recipe: what is done is kept, what was cut off goes on."""

    def work() -> int:
        for flag, stage in (("--from", first), ("--to", last)):
            if stage not in STAGES:
                raise UserError("no such stage", where=f"{flag} {stage}", fix=f"one of {', '.join(STAGES)}")
        return run_recipe(_place(recipe, sets, runs, debug), first, last)

    guarded(work, debug)


@app.command()
def check(recipe: RecipeName, sets: Sets = None, debug: Debug = False) -> None:
    """Print the recipe with every default written out; on standard error, what this machine lacks for it."""

    def work() -> int:
        loaded = load_recipe(recipe, sets or ())
        sys.stdout.write(resolved_yaml(loaded))
        checks.check_sense(loaded)
        for lacking in checks.lacking(loaded):
            log(f"to run it here: {lacking}")
        return 0

    guarded(work, debug)


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    for name, path in shipped_recipes().items():
        print(f"{name:24} {load_recipe(str(path)).description}".rstrip())


@app.command()
def copy(name: RecipeName, dest: Annotated[Path, typer.Argument(metavar="DEST")], debug: Debug = False) -> None:
    """Copy a recipe to edit it; the files it names are still found."""

    def work() -> int:
        source = find_recipe(name)
        target = dest / source.name if dest.is_dir() else dest
        if target.exists():
            raise UserError("this file exists", where=str(target), fix="name another")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, copied(source))
        log(f"copied to {target}; run it with: tapeout run {target}")
        return 0

    guarded(work, debug)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    print(json.dumps(Recipe.model_json_schema(), indent=2))


@app.command()
def gate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a recipe's results or of an eval, or a summary")],
    baseline: Annotated[str | None, typer.Option(metavar="RUN|FILE", help="What to hold it against")] = None,
    minimum: Annotated[float | None, typer.Option("--min", help="Lowest pass@1 that passes")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Largest drop of pass@1 below the baseline's")] = None,
    sets: Sets = None,
    debug: Debug = False,
) -> None:
    """Exit with 1 when a stored score is a regression."""
    config = _given(min=minimum, max_drop=max_drop)
    guarded(lambda: gate_runs(run, baseline, config, sets or (), debug), debug)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Options:
    """What every stage command takes besides its own flags."""

    recipe: str | None
    sets: list[str] | None
    runs: Path
    out: Path | None
    debug: bool


def _stage(
    stage: str, options: Options, flags: dict[str, Any], required: tuple[str, ...], config: Any, inputs: dict[str, Any]
) -> None:
    """One stage of a recipe; or, without a recipe, `config` and `inputs` as the stage's `flags` give them."""

    def work() -> int:
        given = _given(**flags, out=options.out)
        if options.recipe is not None:
            if given:
                names = ", ".join(f"--{name}" for name in given)
                raise UserError(f"the recipe says what {stage} reads and writes", where=names, fix="leave out either")
            return run_stage(_place(options.recipe, options.sets, options.runs, options.debug), stage)
        lacking = [f"--{name}" for name in required if name not in given]
        if lacking:
            raise UserError(f"without a recipe, {', '.join(lacking)} must be given", fix=f"see tapeout {stage} --help")
        alone.check_paths({f"--{name}": str(value) for name, value in given.items() if name in _PATHS[stage]})
        out = (options.out or Path(stage)).absolute()
        step, hardware = alone.stage_step(stage, config, _given(**inputs), options.sets or (), out)
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
Model = Annotated[str | None, typer.Option(metavar="DIR", help="Model folder in Hugging Face layout")]


@app.command()
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
    config = {"sources": [_given(path=rows, format=kind)]}
    options = Options(recipe, sets, runs, out, debug)
    _stage("data", options, flags, ("model", "input", "out"), config, {"model": model})


@app.command()
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


@app.command()
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


@app.command()
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
    _stage("serve", Options(recipe, sets, runs, None, debug), flags, ("model",), _given(port=port), inputs)


@app.command("eval")
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
    config = _given(benchmark=benchmark, samples=samples, completions=completions)
    required = ("benchmark", "out") if completions else ("benchmark", "endpoint", "model", "out")
    _stage("eval", Options(recipe, sets, runs, out, debug), config | inputs, required, config, inputs)


def main() -> None:
    app()
