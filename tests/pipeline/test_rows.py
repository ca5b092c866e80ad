"""Rows in a recipe: compared with the problems they will be scored on, and fetched where they lie elsewhere."""

import json
import os
from pathlib import Path

import pytest

from common.digests.known import Digests
from common.errors import UserError
from pipeline.recipe.schema import load_recipe
from pipeline.run.fetching import is_remote_rows, local_rows
from pipeline.run.graph import plan
from tests.hub import SHA, Hub


def leak(recipe: Path) -> tuple[int, str]:
    """One more row, which is a problem of the recipe's benchmark; gives its line and the problem."""
    prompt = sorted((recipe.parent / "benchmark").glob("*_prompt.txt"))[0]
    name = prompt.name.removesuffix("_prompt.txt")
    reference = prompt.with_name(f"{name}_ref.sv").read_text(encoding="utf-8")
    answer = f"<think>\nx\n</think>\n<answer>\n```verilog\n{reference}\n```\n</answer>"
    rows = recipe.parent / "rows.jsonl"
    row = {"prompt": prompt.read_text(encoding="utf-8"), "response": answer}
    rows.write_text(rows.read_text(encoding="utf-8") + json.dumps(row) + "\n", encoding="utf-8")
    return len(rows.read_text(encoding="utf-8").splitlines()), name


def figures(folder: Path) -> dict[str, object]:
    (found,) = folder.glob("runs/small/data/*/dataset.json")
    return json.loads(found.read_text(encoding="utf-8"))


def test_a_recipe_compares_with_the_benchmark_it_is_scored_on(small: Path, tmp_path: Path, tapeout):
    line, problem = leak(small)
    more = ("--set", "data.contamination_limit=1.0", "--set", "data.max_length=2048")
    refused = tapeout("data", small, *more, "--set", "data.contamination=error")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert f"resembles {problem} of the benchmark" in refused.stderr and f"rows.jsonl:{line}" in refused.stderr
    done = tapeout("data", small, *more, "--set", "data.contamination=drop")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path)["dropped"] == {"contaminated": 1}
    shown = tapeout("data", small, *more, "--set", "data.contamination=drop", "--show", "99", "--json")
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) == line - 1


def data_fingerprint(recipe: Path, *sets: str) -> str:
    return plan(load_recipe(str(recipe), sets), Path("runs"), Digests())[0].fingerprint


def test_rows_that_a_benchmark_can_refuse_are_remembered_with_it(small: Path):
    def told() -> list[str]:
        return [data_fingerprint(small, f"data.contamination={how}") for how in ("warn", "drop", "error")]

    before = told()
    problem = sorted((small.parent / "benchmark").glob("*_ref.sv"))[0]
    problem.write_bytes(problem.read_bytes() + b"\n")
    assert [was == now for was, now in zip(before, told(), strict=True)] == [True, False, False]


@pytest.mark.parametrize("how", ["drop", "error"])
def test_without_a_benchmark_there_is_nothing_to_refuse(small: Path, tapeout, how: str):
    small.write_text(small.read_text(encoding="utf-8").split("eval:")[0], encoding="utf-8")
    for command in (["check", small], ["data", small], ["data", small, "--show", "1"]):
        done = tapeout(*command, "--set", f"data.contamination={how}")
        assert done.returncode == 2 and "where: data.contamination" in done.stderr, done.stderr
        assert "name a folder as data.benchmark" in done.stderr


def test_rows_of_the_hub_are_known_by_their_content(small: Path, tmp_path: Path, tapeout):
    rows = (tmp_path / "rows.jsonl").read_bytes()
    hub = Hub("org/rows", {"train.jsonl": rows}, "datasets")
    small.write_text(small.read_text(encoding="utf-8").replace("path: rows.jsonl", "path: org/rows"), encoding="utf-8")
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "kept")}
    try:
        assert "org/rows does not exist" not in tapeout("check", small, **env).stderr
        first = tapeout("data", small, **env)
        assert first.returncode == 0 and f"org/rows at {SHA[:12]}" in first.stderr, first.stderr
        hub.sha = "e" * 40  # another commit, the same rows
        assert "data: kept" in tapeout("data", small, **env).stderr
        hub.sha, hub.files = "d" * 40, {"train.jsonl": rows[: rows.index(b"\n") + 1] * 2 + rows}
        moved = tapeout("data", small, **env)
        assert moved.returncode == 0 and "data: kept" not in moved.stderr, moved.stderr
    finally:
        hub.close()
    assert len(list(tmp_path.glob("runs/small/data/*/dataset.json"))) == 2
    offline = tapeout("data", small, **env)
    assert "using the copy" in offline.stderr and "data: kept" in offline.stderr, offline.stderr


@pytest.mark.parametrize("key", ["split", "name", "revision"])
@pytest.mark.parametrize("path", ["rows.jsonl", "gs://bucket/rows.jsonl"])
def test_a_split_is_of_a_dataset(small: Path, path: str, key: str):
    recipe = load_recipe(str(small), [f"data.sources.0.path={path}", f"data.sources.0.{key}=x"])
    with pytest.raises(UserError, match=f"a {key} is of a Hub dataset") as caught:
        local_rows(recipe.data)
    assert caught.value.where == f"data.sources.0.{key}"


def test_what_rows_are_remote(tmp_path: Path):
    assert all(map(is_remote_rows, ("org/rows", "hf://datasets/org/rows", "gs://bucket/rows", "https://host/a.csv")))
    assert not any(map(is_remote_rows, ("rows/a.jsonl", "rows/a.CSV", "rows", "a/b/c", os.fspath(tmp_path))))
