"""The command line: `tapeout` and `python -m tapeout`. Reads arguments; the work is in commands.py and alone.py."""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from common.errors import UserError
from common.files import write_text
from common.progress import log
from pipeline.cli import baseline as baseline_command
from pipeline.cli import bench as bench_command
from pipeline.cli import inspect as inspect_command
from pipeline.cli import plan as plan_command
from pipeline.cli import show as show_command
from pipeline.cli import stages as stage_commands
from pipeline.cli.commands import run_recipe
from pipeline.cli.copying import copied
from pipeline.cli.gate import Question, gate_runs
from pipeline.cli.options import RUNS, Debug, First, Last, RecipeName, Runs, Sets, given, guarded, open_recipe
from pipeline.recipe.schema import Recipe, find_recipe, load_recipe, read_recipe, resolved_yaml, shipped_recipes
from pipeline.run import checks, inputs
from pipeline.run.gate_more import More
from pipeline.run.graph import STAGES

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"tapeout {importlib.metadata.version('tapeout')}")
        raise typer.Exit


_VERSION = typer.Option("--version", callback=_version, is_eager=True, help="Print the version")


@app.callback()
def tapeout(version: Annotated[bool, _VERSION] = False) -> None:
    """Fine-tune, serve, simulate and score a model: one YAML recipe, one command."""


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
        return run_recipe(open_recipe(recipe, sets, runs, debug), first, last)

    guarded(work, debug)


@app.command()
def check(recipe: RecipeName, sets: Sets = None, debug: Debug = False) -> None:
    """Print the recipe with every default written out; on standard error, what this machine lacks for it."""

    def work() -> int:
        loaded, source = read_recipe(recipe, sets or ())
        sys.stdout.write(resolved_yaml(loaded))
        checks.check_sense(loaded)
        for key, doubt in checks.doubts(loaded):
            log(f"warning: {inputs.placed(source, tuple(key.split('.')), doubt)}")
        for lacking in inputs.lacking(loaded, source):
            log(f"to run it here: {lacking}")
        inputs.check_model(loaded, source)
        return 0

    guarded(work, debug)


@app.command()
def recipes() -> None:
    """List the shipped recipes."""

    def work() -> int:
        for name, path in shipped_recipes().items():
            print(f"{name:24} {load_recipe(str(path)).description}".rstrip())
        return 0

    guarded(work)


@app.command()
def copy(name: RecipeName, dest: Annotated[Path, typer.Argument(metavar="DEST")], debug: Debug = False) -> None:
    """Copy a recipe to edit it; the files it names are still found."""

    def work() -> int:
        source = find_recipe(name)
        target = dest / source.name if dest.is_dir() else dest
        if target.exists():
            raise UserError("this file exists", where=str(target), fix="name another")
        target.parent.mkdir(parents=True, exist_ok=True)
        text, called = copied(source, target)
        write_text(target, text)
        log(f"copied to {target}; its results will be in runs/{called}; run it with: tapeout run {target}")
        return 0

    guarded(work, debug)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""

    def work() -> int:
        print(json.dumps(Recipe.model_json_schema(), indent=2))
        return 0

    guarded(work)


@app.command()
def gate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a recipe's results or of an eval, or a summary")],
    baseline: Annotated[str | None, typer.Option(metavar="RUN|FILE", help="What to hold it against")] = None,
    minimum: Annotated[float | None, typer.Option("--min", help="Lowest pass@1 that passes")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Largest drop of pass@1 that passes; 0 unless given")] = None,
    on_noise: Annotated[str | None, typer.Option(help="pass, fail or more_samples: what noise counts as")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="For more_samples: the run's server")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="For more_samples: its model's name")] = None,
    samples: Annotated[int, typer.Option(min=1, help="For more_samples: how many more a problem")] = 10,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="For more_samples: the joint result")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Markdown summary")] = None,
    sets: Sets = None,
    debug: Debug = False,
) -> None:
    """Exit with 1 when a stored score is a regression."""
    config = given(min=minimum, max_drop=max_drop, on_noise=on_noise)
    more = More(endpoint, model, samples, out)
    question = Question(run, baseline, config, sets or (), more, debug)
    guarded(lambda: gate_runs(question, junit, markdown), debug)


for name, stage in (
    ("data", stage_commands.data),
    ("train", stage_commands.train),
    ("convert", stage_commands.convert),
    ("serve", stage_commands.serve),
    ("eval", stage_commands.evaluate),
):
    app.command(name)(stage)


app.command("show")(show_command.show)
app.command("inspect")(inspect_command.inspect)
app.command("plan")(plan_command.plan)
app.add_typer(baseline_command.app, name="baseline")
app.add_typer(bench_command.app, name="bench")


def main() -> None:
    app(prog_name="tapeout")
