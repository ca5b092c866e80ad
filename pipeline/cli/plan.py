"""`tapeout plan`: what a recipe needs of hardware and costs there, before it is rented."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from common.disk import cache_in
from common.errors import UserError
from common.machine.chips import slice_of
from common.schema import is_remote
from pipeline.cli.commands import RecipeRun
from pipeline.cli.options import RUNS, Debug, RecipeName, Runs, Sets, guarded, open_recipe
from pipeline.plan.asked import Question, ask_compiler, ask_sizes
from pipeline.plan.planned import Stage
from pipeline.plan.prices import price_of
from pipeline.plan.text import blocks

_SERVE_ON = typer.Option("--serve-on", metavar="SLICE", help="TPU slice that serves; left out: the same")
_COMPILE = typer.Option("--compile", help="Ask the TPU compiler for memory and time (pip install libtpu; minutes)")
_PRICE = typer.Option("--price", metavar="USD", help="Of an hour of the slice that trains; left out: as published")
_SERVE_PRICE = typer.Option("--serve-price", metavar="USD", help="Of an hour of the slice that serves")


def plan(
    recipe: RecipeName,
    on: Annotated[str, typer.Option("--on", metavar="SLICE", help="TPU slice that trains, e.g. v5p-8")],
    serve_on: Annotated[str | None, _SERVE_ON] = None,
    compiled: Annotated[bool, _COMPILE] = False,
    price: Annotated[float | None, _PRICE] = None,
    serve_price: Annotated[float | None, _SERVE_PRICE] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
    sets: Sets = None,
    runs: Runs = RUNS,
    debug: Debug = False,
) -> None:
    """Say whether a recipe fits a TPU slice, how long it takes there and what that costs: nothing is rented."""
    slices = {"train": on, "serve": serve_on or on}
    prices = {"train": price, "serve": serve_price if serve_on else price}
    guarded(lambda: show_plan(open_recipe(recipe, sets, runs, debug), slices, prices, compiled, as_json), debug)


def show_plan(
    opened: RecipeRun, slices: dict[str, str], prices: dict[str, float | None], compiled: bool, as_json: bool
) -> int:
    """Print the plan; returns the exit code: 1 where a stage does not fit. Raises UserError for a model that is not
    here, of which config.json is enough."""
    recipe = opened.recipe
    if is_remote(recipe.model.path) or not Path(recipe.model.path, "config.json").is_file():
        fix = "fetch its config.json alone: hf download ID config.json --local-dir DIR, and --set model.path=DIR"
        raise UserError("a plan needs the model's config.json", where=recipe.model.path, fix=fix)
    questions = [Question(stage, slice_of(name)) for stage, name in slices.items()]
    sizes = ask_sizes(recipe, questions, opened.env)
    stages = [Stage(q.stage, q.slice, price_of(q.slice, prices[q.stage]), sizes[q.stage], None) for q in questions]
    if compiled:
        cache = cache_in(opened.runs) / "plan"
        for i, (question, stage) in enumerate(zip(questions, stages, strict=True)):
            if not stage.refused:
                stages[i] = replace(stage, figures=ask_compiler(recipe, question, cache, opened.env))
    if as_json:
        about = {key: sizes[key] for key in ("parameters", "files")}
        print(json.dumps({"recipe": recipe.name, **about, **{stage.name: stage.as_json() for stage in stages}}))
    else:
        print(f"{recipe.name}: {sizes['parameters']:,} parameters, {sizes['files'] / 1e9:.3g} GB of files")
        print("\n".join(blocks(stages, sizes["parameters"], recipe.train.steps)))
    return 0 if all(stage.fits for stage in stages) else 1
