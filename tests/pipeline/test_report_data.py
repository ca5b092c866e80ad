"""The report's section on the data says what dataset.json says."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from common.benchmark.layouts import load_benchmark
from common.digests.known import Digests
from pipeline.recipe.schema import load_recipe, shipped_folder
from pipeline.report.data import bars, data_section
from pipeline.report.page import write_report
from pipeline.run.graph import plan
from pipeline.run.records import write_record
from pipeline.run.runner import read_result

DATASET = {
    "rows": 12,
    "kept": 9,
    "dropped": {"duplicate": 2, "too long": 1},
    "supervised_share": 0.4,
    "efficiency": 0.98,
    "max_length": 64,
    "lengths": {
        "p50": 20,
        "max": 90,
        "kept_at": {"64": 0.9, "128": 1.0},
        "histogram": {"width": 10, "counts": [1, 4, 0, 2, 0, 0, 1, 1]},
    },
}


def test_bars_stand_for_the_counts() -> None:
    drawn = ElementTree.fromstring(bars({"width": 10, "counts": [1, 4, 0, 2]}, 32))
    rects = [element for element in drawn.iter() if element.tag == "rect"]
    heights = [float(rect.attrib["height"]) for rect in rects]
    assert heights[2] == 0 and heights[1] == pytest.approx(4 * heights[0], abs=0.5)
    assert [str(rect[0].text) for rect in rects][-1] == "31 to 40 tokens and more: 2"
    assert any(element.text == "max_length 32" for element in drawn.iter())
    assert not any(
        element.text == "max_length 50"
        for element in ElementTree.fromstring(bars({"width": 10, "counts": [1, 4, 0, 2]}, 50)).iter()
    )


def test_the_section_is_read_from_the_stage(tmp_path: Path) -> None:
    assert data_section(tmp_path, None) is None
    worst = [{"similarity": 0.9, "where": "f:1", "problem": f"Prob{i}", "of": "rtl", "excerpt": "x"} for i in range(30)]
    benchmark = str(shipped_folder() / "assets" / "starter" / "benchmark")
    compared = {"name": "benchmark", "digest": load_benchmark(benchmark).digest}
    found = {
        **DATASET,
        "contamination": {"benchmark": compared, "limit": 0.8, "rows": 1, "problems": 1, "worst": worst},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(found))
    section = data_section(tmp_path, benchmark)
    assert section is not None and section["lengths"] == {"p50": 20, "max": 90}
    assert len(section["contamination"]["worst"]) == 10 and section["dropped"] == DATASET["dropped"]
    assert re.search(r"<svg .*</svg>", section["histogram"]) and not section["compared_with_other"]
    for now, said in (
        (None, compared),
        (str(tmp_path / "gone"), compared),
        (benchmark, {}),
        (benchmark, {"name": "x"}),
    ):
        found["contamination"]["benchmark"] = said
        (tmp_path / "dataset.json").write_text(json.dumps(found))
        section = data_section(tmp_path, now)
        assert section is not None and section["contamination"] is None
        assert section["compared_with_other"] == said.get("name", "an earlier one")
    older = {name: value for name, value in DATASET.items() if name != "lengths"} | {"lengths": {"p50": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(older))
    assert data_section(tmp_path, benchmark) is None


def test_the_page_shows_the_data(small: Path, tmp_path: Path) -> None:
    """Of a data stage alone, with a row whose text looks like markup."""
    recipe = load_recipe(str(small))
    step = plan(recipe, tmp_path / "runs", Digests())[0]
    step.final.mkdir(parents=True)
    pair = {"similarity": 0.914, "where": "rows.jsonl:7", "problem": "Prob042_x", "of": "rtl", "excerpt": "<b> & so"}
    found = {**DATASET, "windowed": {"rows": 1, "windows": 3}}
    digest = load_benchmark(str(tmp_path / "benchmark")).digest
    found["contamination"] = {
        "benchmark": {"name": "benchmark", "digest": digest},
        "limit": 0.8,
        "rows": 1,
        "problems": 1,
        "worst": [pair],
    }
    (step.final / "dataset.json").write_text(json.dumps(found))
    record = {"stage": step.name, "fingerprint": step.fingerprint, "identity": step.identity, "config": {}}
    write_record(step.final, record, "2026-01-01T00:00:00", 1.0, {"rows": 12, "kept": 9}, {})
    html = write_report(recipe, tmp_path / "runs" / "small", [read_result(step)], None).read_text(encoding="utf-8")
    other = (tmp_path / "benchmark" / "Prob001_alu_16_prompt.txt").write_text("another problem")
    assert other and "Prob042_x" not in write_report(
        recipe, tmp_path / "runs" / "small", [read_result(step)], None
    ).read_text(encoding="utf-8")
    for words in ("Prob042_x", "0.91", "rows.jsonl:7", "&lt;b&gt; &amp; so", "too long", "1 cut into 3 windows"):
        assert words in html
    assert len(re.findall("<rect", html)) == 8 and "packing efficiency 98.0 %" in html
