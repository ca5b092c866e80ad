"""Every kind of file gives the same conversations; options of the stage do what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from common.errors import UserError
from data.config import DataConfig, Source
from data.sources.files import all_rows, rows_of

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}\nline"} for i in range(7)]


def test_parquet_csv_arrow_and_globs_hold_the_same_rows(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "b.csv")
    with pa.ipc.new_file(tmp_path / "c.arrow", table.schema) as file:
        file.write_table(table)
    for name in ("a.parquet", "b.csv", "c.arrow"):
        assert [row for _, row in rows_of(Source(path=str(tmp_path / name)))] == ROWS
    globbed = Source.model_validate({"path": f"{tmp_path}/*.[pc]*"})
    assert globbed.path == str(tmp_path) and len(list(rows_of(globbed))) == 14


def test_a_parquet_file_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read") as caught:
        list(rows_of(Source(path=str(path))))
    assert caught.value.where == str(path)


def test_a_mixture_keeps_its_weights(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"n": "{name}{i}"}}\n' for i in range(30)))
    sources = [{"path": str(tmp_path / "a.jsonl"), "weight": 3}, {"path": str(tmp_path / "b.jsonl"), "weight": 1}]
    taken = [str(row)[7] for _, _, row in all_rows(DataConfig.model_validate({"sources": sources}))]
    assert taken.count("a") == 30 and taken.count("b") in (9, 10)


def test_bad_rows_are_counted_where_the_recipe_says(rows_file: Callable[..., str], prepare: Callable[..., Any]) -> None:
    path = rows_file([*ROWS, b"{", {"prompt": 3}])
    figures = prepare(path, form="prompt-completion", bad_rows="drop")
    assert figures["kept"] == 7 and figures["dropped"] == {"bad row": 2}
    with pytest.raises(UserError, match="more than max_length"):
        prepare(
            rows_file([{"prompt": "p", "completion": "x y z " * 40}]),
            form="prompt-completion",
            max_length=16,
            overflow="error",
        )
