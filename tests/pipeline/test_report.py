"""The report and the closing table, drawn from stored results as the stages leave them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.digests.known import Digests
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.report.chart import Line, line_chart, ticks
from pipeline.report.closing import print_closing, scores
from pipeline.report.page import write_report
from pipeline.run.figures import key_figures, shown
from pipeline.run.gate import Judgement
from pipeline.run.graph import Step, plan
from pipeline.run.records import write_record
from pipeline.run.runner import Result, is_done, read_result

METRICS = {
    "data": {"rows": 40, "kept": 37},
    "train": {"steps": 6, "loss": 0.25},
    "convert": {"merged": 85, "bytes": 9_654_395},
    "serve": {"slots": 4},
    "eval": {"pass@1": 0.75, "pass@5": None, "problems": 2, "samples": 4},
    "eval-base": {"pass@1": 0.0, "pass@5": None, "problems": 2, "samples": 4},
}
VERDICT = Judgement(True, "gate: passed\n  pass@1 0.750", None)


def lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def store(step: Step) -> None:
    """What the step's stage would leave, in small."""
    step.final.mkdir(parents=True)
    if step.stage == "train":
        rows = [{"step": i, "loss": 3.0 / i} for i in range(1, 7)]
        lines(step.final / "log.jsonl", [*rows, {"step": 6, "validation_loss": 0.5}])
    if step.stage == "eval":
        tuned = step.name == "eval"
        tasks = [("Prob001_a", 2 if tuned else 0), ("Prob002_<b>", 1 if tuned else 0)]
        samples = [
            {"task_id": task, "sample": i, "completion": f"module {step.name}_{i} <= &;"}
            for task, _ in tasks
            for i in (0, 1)
        ]
        results = [
            {"task_id": task, "sample": i, "passed": i < n, "category": "pass" if i < n else "mismatch", "detail": ""}
            for task, n in tasks
            for i in (0, 1)
        ]
        lines(step.final / "samples.jsonl", samples)
        lines(step.final / "results.jsonl", results)
        summary = {"per_problem": dict(tasks), "per_problem_samples": {task: 2 for task, _ in tasks}, "samples": 4}
        (step.final / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    record = {"stage": step.name, "fingerprint": step.fingerprint, "identity": step.identity, "config": {}}
    write_record(step.final, record, "2026-01-01T00:00:00", 12.5, METRICS[step.name], {})


@pytest.fixture
def run(small: Path, tmp_path: Path) -> tuple[Recipe, list[Result]]:
    recipe = load_recipe(str(small))
    steps = plan(recipe, tmp_path / "runs", Digests())
    for step in steps:
        store(step)
    assert all(is_done(step) for step in steps)
    return recipe, [read_result(step) for step in steps]


class Page(HTMLParser):
    """Collects what a browser would fetch, and the text it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def test_the_report_is_one_file_with_everything(run: tuple[Recipe, list[Result]], tmp_path: Path):
    recipe, results = run
    path = write_report(recipe, tmp_path / "runs" / "small", results, VERDICT)
    html = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.open == []
    assert page.fetched == []
    assert "url(" not in html and "@import" not in html and "<script" not in html
    for words in ("tuned pass@1", "0.750", "base pass@1", "0.000", "gate: passed", "Prob002_<b>", "1/2", "2/2", "0/2"):
        assert words in page.text
    assert "module eval_0 <= &;" in page.text and "module eval-base_0 <= &;" in page.text
    assert "rank: 4" in page.text
    assert page.text.count("mismatch") >= 2
    assert len(re.findall("<polyline", html)) == 2
    for result in results:
        assert result.step.fingerprint in page.text


def test_an_unchanged_run_leaves_the_report_alone(run: tuple[Recipe, list[Result]], tmp_path: Path):
    recipe, results = run
    path = write_report(recipe, tmp_path / "runs" / "small", results, VERDICT)
    before = path.stat().st_mtime_ns
    assert write_report(recipe, tmp_path / "runs" / "small", results, VERDICT).stat().st_mtime_ns == before
    changed = Judgement(False, "gate: FAILED", None)
    assert write_report(recipe, tmp_path / "runs" / "small", results, changed).stat().st_mtime_ns != before


def test_a_part_of_a_run_has_a_report(run: tuple[Recipe, list[Result]], tmp_path: Path):
    recipe, results = run
    path = write_report(recipe, tmp_path / "runs" / "small", results[:1], None)
    assert "Completions" not in path.read_text(encoding="utf-8")


def test_the_closing_table_is_plain_text(run: tuple[Recipe, list[Result]], capsys: pytest.CaptureFixture[str]):
    _, results = run
    print_closing(results, results, VERDICT, Path("runs/small/report.html"), "small.yaml")
    rows = [row.rstrip() for row in capsys.readouterr().err.splitlines()]
    merged = next(result.step.final for result in results if result.step.name == "convert")
    assert rows == [
        "",
        "stage      seconds  key figures",
        "data          kept  rows 40, kept 37",
        "eval-base     kept  pass@1 0, problems 2, samples 4",
        "train         kept  steps 6, loss 0.25",
        "convert       kept  merged 85, bytes 9,654,395",
        "serve         kept  slots 4",
        "eval          kept  pass@1 0.75, problems 2, samples 4",
        "",
        "model  pass@1",
        "base   0.000",
        "tuned  0.750",
        "",
        "gate: passed",
        "  pass@1 0.750",
        "",
        f"model:  {merged / 'model'}",
        "serve:  tapeout serve small.yaml --port 8000",
        "report: runs/small/report.html",
    ]


def test_prompts_are_read_where_the_recipe_says(small: Path, tmp_path: Path):
    """In a dataset of a checkout, too."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "benchmark").rename(tmp_path / "checkout" / "dataset_x")
    (tmp_path / "checkout" / "dataset_x" / "Prob001_a_prompt.txt").write_text("words of the dataset", encoding="utf-8")
    recipe = load_recipe(str(small), ["eval.benchmark=checkout", "eval.dataset=dataset_x"])
    (step,) = [step for step in plan(recipe, tmp_path / "runs", Digests()) if step.name == "eval"]
    store(step)
    html = write_report(recipe, tmp_path / "runs" / "small", [read_result(step)], None).read_text(encoding="utf-8")
    assert "words of the dataset" in html


def test_figures_that_a_stage_does_not_report_are_left_out(run: tuple[Recipe, list[Result]]):
    _, results = run
    by_name = {result.step.name: result for result in results}
    assert key_figures(by_name["eval"]) == {"pass@1": 0.75, "problems": 2, "samples": 4}
    assert scores(results) == {"base": {"pass@1": 0.0}, "tuned": {"pass@1": 0.75}}


@pytest.mark.parametrize(
    ("value", "text"), [(1234567, "1,234,567"), (0.123456, "0.1235"), (12345.678, "12,346"), ("a", "a"), (True, "True")]
)
def test_shown(value: object, text: str):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0, 0.9, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (5, 5, [5, 5.2, 5.4, 5.6, 5.8, 6.0])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_chart_leaves_out_what_is_not_finite():
    assert line_chart([Line("loss", "training", [(1, float("nan"))])], "step", "loss") == ""
    svg = line_chart([Line("loss", "training", [(1, 2.0), (2, float("inf")), (3, 1.0)])], "step", "loss")
    points = re.search('points="([^"]*)"', svg)
    assert points is not None and len(points[1].split()) == 2
