"""Files that lie: every one is a UserError that names the file or the tensor, and fits on a screen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from common.errors import UserError
from common.safetensors import INDEX, SINGLE
from models.weights.files import WeightFiles

Table = dict[str, Any]


def write(path: Path, table: Table, data: bytes) -> None:
    head = json.dumps(table).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> Table:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def refused(folder: Path, where: str) -> str:
    with pytest.raises(UserError) as error:
        WeightFiles(str(folder))
    assert where in error.value.where and error.value.fix
    assert len(str(error.value).splitlines()) <= 4
    return error.value.what


@pytest.mark.parametrize(
    ("table", "size", "what"),
    [
        ({"a": entry(0, 16)}, 12, "bytes long, its header says"),
        ({"a": entry(0, 16)}, 20, "bytes long, its header says"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "overlap or leave gaps"),
        ({"a": entry(0, 8), "b": entry(12, 16)}, 16, "overlap or leave gaps"),
        ({"a": entry(0, 8, [3])}, 8, "a has 8 bytes for shape"),
        ({"a": entry(0, 8, [1 << 40, 1 << 40])}, 8, "a has 8 bytes for shape"),
        ({"a": entry(0, 8, [-1, -2])}, 8, "not whole numbers"),
        ({"a": entry(0, 8, [2.0])}, 8, "not whole numbers"),
        ({"a": entry(-8, 0)}, 8, "not whole numbers"),
        ({"a": entry(0, 8, dtype="F31")}, 8, "type F31 are not known"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "data_offsets"),
        ({"a": 7}, 8, "not a whole safetensors file"),
    ],
)
def test_headers_that_lie(tmp_path: Path, table: Table, size: int, what: str) -> None:
    write(tmp_path / SINGLE, table, bytes(size))
    assert what in refused(tmp_path, SINGLE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"\xff" * 40,
        (20).to_bytes(8, "little") + b"not json, not at all",
        (4).to_bytes(8, "little") + b"[[]]",
        (2000).to_bytes(8, "little") + b"[" * 2000,
        (14).to_bytes(8, "little") + b'{"a":1,"a": 2}',
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SINGLE).write_bytes(content)
    assert "not a whole safetensors file" in refused(tmp_path, SINGLE)


@pytest.mark.parametrize(
    ("index", "what"),
    [
        ({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}, "1 of 2 weight files are missing: two.saf"),
        ({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}, "the index promises b"),
        ({"weight_map": {"a": "../one.safetensors"}}, "not the name of a file beside it"),
        ({"weight_map": {"a": 1}}, "malformed index"),
        ({"weight_map": ["a"]}, "malformed index"),
        ([], "malformed index"),
        ({}, "malformed index"),
    ],
)
def test_an_index_that_lies(tmp_path: Path, index: Any, what: str) -> None:
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "one.safetensors")
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert what in refused(tmp_path, str(tmp_path))


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_file({"a": np.zeros(2, np.float32)}, tmp_path / f"{name}.safetensors")
    assert refused(tmp_path, str(tmp_path)) == "several files hold a"


def test_a_folder_without_weights(tmp_path: Path) -> None:
    assert refused(tmp_path, str(tmp_path)) == "no safetensors here"


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    save_file({"a": np.zeros(100, np.float32)}, tmp_path / SINGLE)
    checkpoint = WeightFiles(str(tmp_path))
    (tmp_path / SINGLE).write_bytes((tmp_path / SINGLE).read_bytes()[:-8])
    with pytest.raises(UserError, match="ends inside") as error:
        checkpoint.read("a")
    assert error.value.where == "a"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_found_wherever_they_are(
    tmp_path: Path, dtype: type[np.floating], spoil: float
) -> None:
    largest = float(np.finfo(dtype).max)
    for at in (0, 700_000, 1_499_999):
        values = np.full(1_500_000, largest, dtype)
        save_file({"good": values}, tmp_path / SINGLE)
        assert np.array_equal(WeightFiles(str(tmp_path)).read("good", finite=True), values)
        values[at] = spoil
        save_file({"bad": values}, tmp_path / SINGLE)
        with pytest.raises(UserError, match="NaN or infinity") as error:
            WeightFiles(str(tmp_path)).read("bad", finite=True)
        assert error.value.where == "bad"
