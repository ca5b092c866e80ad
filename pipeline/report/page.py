"""runs/<recipe>/report.html: one file that shows what a run found and what it came from. Needs nothing but itself.

Drawn only from stored results, without the time of drawing, so an unchanged run leaves an unchanged file.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from common.files import read_json, write_text
from pipeline.recipe.schema import Recipe, resolved_yaml
from pipeline.report.chart import Line, line_chart
from pipeline.report.closing import scores
from pipeline.report.data import data_section, problems
from pipeline.run.figures import key_figures, shown
from pipeline.run.gate import Judgement
from pipeline.run.graph import compared_rows
from pipeline.run.records import RECORD
from pipeline.run.runner import Result

REPORT = "report.html"
_MODELS = {"eval-base": "base", "eval": "tuned"}
_EXAMPLES = (("tuned", True, 3), ("tuned", False, 4), ("base", True, 1), ("base", False, 3))


@dataclass(frozen=True)
class Cell:
    passed: int
    samples: int

    @property
    def percent(self) -> int:
        return round(100 * self.passed / self.samples) if self.samples else 0


@dataclass(frozen=True)
class Example:
    """One completion and what the simulator said."""

    model: str
    task: str
    sample: int
    passed: bool
    category: str
    detail: str
    prompt: str
    completion: str


def write_report(recipe: Recipe, root: Path, results: Sequence[Result], verdict: Judgement | None) -> Path:
    """Write the report where it differs from what is there; returns its path."""
    path = root / REPORT
    html = render(recipe, results, verdict)
    if not path.is_file() or path.read_text(encoding="utf-8") != html:
        write_text(path, html)
    return path


def template(name: str) -> Template:
    """Of a page; all share style.css.jinja."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["shown"] = shown
    return environment.get_template(name)


def render(recipe: Recipe, results: Sequence[Result], verdict: Judgement | None) -> str:
    folders = {result.step.name: result.step.final for result in results}
    return template("report.html.jinja").render(
        recipe=recipe,
        yaml=resolved_yaml(recipe),
        verdict=verdict,
        scores=scores(results),
        stages=[(result, key_figures(result)) for result in results],
        records=[read_json(folder / RECORD) for folder in folders.values()],
        data=data_section(folders["data"], compared_rows(recipe).benchmark) if "data" in folders else None,
        loss=Markup(_loss(folders["train"])) if "train" in folders else "",
        grid=_grid(folders),
        examples=list(_examples(recipe, folders)),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _loss(train: Path) -> str:
    rows = _lines(train / "log.jsonl")
    drawn = [
        Line(name, style, [(row["step"], row[name]) for row in rows if row.get(name) is not None])
        for name, style in (("loss", "training"), ("validation_loss", "validation"))
    ]
    return line_chart([line for line in drawn if line.points], "step", "loss")


def _grid(folders: dict[str, Path]) -> list[tuple[str, dict[str, Cell]]]:
    """Per problem: the cell of each model that was scored."""
    grid: dict[str, dict[str, Cell]] = {}
    for name, model in _MODELS.items():
        if name in folders:
            summary = read_json(folders[name] / "summary.json")
            for task, passed in summary["per_problem"].items():
                samples = summary.get("per_problem_samples", {}).get(task, summary["samples"])
                grid.setdefault(task, {})[model] = Cell(passed, samples)
    return sorted(grid.items())


def _examples(recipe: Recipe, folders: dict[str, Path]) -> Iterator[Example]:
    """A few completions of each kind, from as many problems as there are kinds of verdict."""
    if recipe.eval is None:
        return
    found = problems(recipe.eval.benchmark, recipe.eval.dataset, recipe.eval.revision)
    prompts = {problem.task_id: problem.prompt for problem in found.problems} if found else {}
    for name, model in _MODELS.items():
        if name not in folders:
            continue
        said = {(row["task_id"], row["sample"]): row["completion"] for row in _lines(folders[name] / "samples.jsonl")}
        verdicts = sorted(_lines(folders[name] / "results.jsonl"), key=lambda row: (row["task_id"], row["sample"]))
        for wanted, passed, count in _EXAMPLES:
            if wanted != model:
                continue
            for row in _varied([row for row in verdicts if row["passed"] == passed], count):
                task, sample = row["task_id"], row["sample"]
                words = (prompts.get(task, ""), said.get((task, sample), ""))
                shown_row = (passed, row["category"], str(row.get("detail") or ""), *words)
                yield Example(model, task, sample, *shown_row)


def _varied(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first row of each verdict, then of each problem, until there are `count`."""
    chosen: list[dict[str, Any]] = []
    for name in ("category", "task_id"):
        seen = {row[name] for row in chosen}
        for row in rows:
            if len(chosen) < count and row[name] not in seen and row not in chosen:
                chosen.append(row)
                seen.add(row[name])
    return chosen
