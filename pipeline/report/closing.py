"""The closing table: what each stage took and found, base against tuned, and where the report is."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.run.gate import Judgement
from pipeline.run.runner import Result

FIGURES: dict[str, tuple[str, ...]] = {
    "data": ("rows", "kept", "packed_rows", "tokens", "supervised", "efficiency"),
    "train": ("steps", "loss", "validation_loss", "tokens_per_second", "trained_parameters"),
    "convert": ("merged", "missing", "bytes"),
    "serve": ("load_seconds", "warmup_seconds", "probes", "slots"),
    "eval": ("pass@1", "pass@5", "problems", "samples", "generated_tokens"),
}
"""Which of a stage's metrics a person wants at a glance, in this order, as far as the stage reports them."""
_SHOWN = 4


def shown(value: Any) -> str:
    """A figure for people: four digits, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def key_figures(result: Result) -> dict[str, Any]:
    """The first few of the stage's figures that are there."""
    known = {name: result.metrics.get(name) for name in FIGURES[result.step.stage]}
    return {name: value for name, value in list(known.items()) if value is not None and not isinstance(value, dict)}


def scores(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """pass@k of `base` and `tuned`, as far as they were scored."""
    names = {"eval-base": "base", "eval": "tuned"}
    return {
        names[result.step.name]: {k: v for k, v in result.metrics.items() if k.startswith("pass@") and v is not None}
        for result in results
        if result.step.name in names
    }


def print_closing(
    done: Sequence[Result], everything: Sequence[Result], verdict: Judgement | None, report: Path
) -> None:
    """To standard error; colours only on a terminal. `done` are this run's stages, `everything` adds earlier ones."""
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)
    stages = Table("stage", "seconds", "key figures", box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    stages.columns[1].justify = "right"
    for result in done:
        figures = [f"{name} {shown(value)}" for name, value in list(key_figures(result).items())[:_SHOWN]]
        stages.add_row(result.step.name, "kept" if result.kept else f"{result.seconds:.1f}", ", ".join(figures))
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
    console.print(f"report: {report}", markup=False, soft_wrap=True)


def _score_table(found: dict[str, dict[str, float]], terminal: bool) -> Table:
    names = list(dict.fromkeys(name for figures in found.values() for name in figures if "(" not in name))
    table = Table("model", *names, box=SIMPLE_HEAD if terminal else None, pad_edge=False)
    for model, figures in found.items():
        table.add_row(model, *(f"{figures[name]:.3f}" if name in figures else "" for name in names))
    return table
