"""The closing table: what each stage took and found, base against tuned, and where the report is."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.run.figures import at_a_glance
from pipeline.run.gate import Judgement
from pipeline.run.runner import Result

MODEL = "model"
"""The merged model's folder in what convert leaves."""


def scores(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """pass@k of `base` and `tuned`, as far as they were scored."""
    names = {"eval-base": "base", "eval": "tuned"}
    return {
        names[result.step.name]: {k: v for k, v in result.metrics.items() if k.startswith("pass@") and v is not None}
        for result in results
        if result.step.name in names
    }


def print_closing(
    done: Sequence[Result], everything: Sequence[Result], verdict: Judgement | None, report: Path, called: str
) -> None:
    """To standard error; colours only on a terminal. `done` are this run's stages, `everything` adds earlier ones;
    `called` is the recipe as it was named on the command line."""
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)
    stages = Table("stage", "seconds", "key figures", box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    stages.columns[1].justify = "right"
    for result in done:
        stages.add_row(result.step.name, "kept" if result.kept else f"{result.seconds:.1f}", at_a_glance(result))
    console.print()
    console.print(stages)
    found = scores(everything)
    if found:
        console.print()
        console.print(_score_table(found, console.is_terminal))
    if verdict is not None:
        console.print()
        console.print(verdict.text, style="green" if verdict.passed else "bold red", markup=False)
    console.print()
    for result in everything:
        if result.step.stage == "convert":
            console.print(f"model:  {result.step.final / MODEL}", markup=False, soft_wrap=True)
            console.print(f"serve:  tapeout serve {called} --port 8000", markup=False, soft_wrap=True)
    console.print(f"report: {report}", markup=False, soft_wrap=True)


def _score_table(found: dict[str, dict[str, float]], terminal: bool) -> Table:
    names = list(dict.fromkeys(name for figures in found.values() for name in figures if "(" not in name))
    table = Table("model", *names, box=SIMPLE_HEAD if terminal else None, pad_edge=False)
    for model, figures in found.items():
        table.add_row(model, *(f"{figures[name]:.3f}" if name in figures else "" for name in names))
    return table
