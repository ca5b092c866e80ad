"""What the commands share: their common flags, and how one runs and ends."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from common.answer import report, unbroken
from common.progress import log
from pipeline.cli.commands import RecipeRun
from pipeline.recipe.schema import find_recipe, read_recipe
from pipeline.run.children import ChildFailed, Interrupted, interruptible
from pipeline.run.graph import STAGES

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe file, or the name of a shipped one")]
MaybeRecipe = Annotated[
    str | None, typer.Argument(metavar="[RECIPE]", help="Run this stage of a recipe; left out: from flags alone")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. train.lora.rank=16")
]
RUNS = Path("runs")
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where results are kept")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks")]
First = Annotated[str, typer.Option("--from", metavar="STAGE", help=f"First of {', '.join(STAGES)}")]
Last = Annotated[str, typer.Option("--to", metavar="STAGE", help="Last stage to run")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="New folder for the result")]
Model = Annotated[str | None, typer.Option(metavar="DIR", help="Model folder in Hugging Face layout")]


@dataclass(frozen=True)
class Options:
    """What every stage command takes besides its own flags."""

    recipe: str | None
    sets: list[str] | None
    runs: Path
    out: Path | None
    debug: bool


def guarded(work: Callable[[], int], debug: bool = False) -> NoReturn:
    """Do `work` and exit with its code; a user's error is one screen and a 2, a signal is 130 or 143, and a reader of
    our output who has left (`| head`) is 141 without a word, as of other programs.
    """
    debug = debug or os.environ.get("TAPEOUT_DEBUG") == "1"
    raise SystemExit(unbroken(lambda: _outcome(work, debug)))


def _outcome(work: Callable[[], int], debug: bool) -> int:
    try:
        with interruptible():
            return work()
    except Interrupted as interrupted:
        log("stopped; nothing half-written, the same command goes on from here")
        return interrupted.exit_code
    except ChildFailed as failed:
        log(str(failed))
        return failed.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        return report(error, debug)


def open_recipe(recipe: str, sets: list[str] | None, runs: Path, debug: bool) -> RecipeRun:
    called = " ".join([recipe, *(f"--set {s}" for s in sets or ()), *([] if runs == RUNS else [f"--runs {runs}"])])
    loaded, source = read_recipe(recipe, sets or ())
    return RecipeRun(loaded, source, find_recipe(recipe), tuple(sets or ()), called, runs.absolute(), debug)


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
