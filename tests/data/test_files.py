"""Files of rows as people have them: with a byte order mark, compressed, blank lines, arrays, parts, saved datasets."""

import bz2
import codecs
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from common.errors import UserError
from data.config import ending
from tests.data.test_bad_input import model
from tests.data.test_tools import CALLS, shown

Prepare = Callable[..., dict[str, Any]]
ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(5)]
LINES = [json.dumps(row) for row in ROWS]
CSV = "prompt,completion\n" + "".join(f"p{i},c{i}\n" for i in range(5))
TEXTS = {
    "lines.jsonl": "\n".join(LINES),
    "blank.jsonl": "\n\n" + "\n \t\n\r\n".join(LINES) + "\n\n",
    "array.jsonl": json.dumps(ROWS, indent=1),
    "array.json": json.dumps(ROWS),
    "lines.ndjson": "\r\n".join(LINES),
    "rows.csv": CSV,
}


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("packed", ["", ".gz", "unsaid"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_kind_is_read(prepare: Prepare, tmp_path: Path, name: str, packed: str, mark: bytes) -> None:
    content = mark + TEXTS[name].encode()
    path = tmp_path / (f"{name}.gz" if packed == ".gz" else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    figures = prepare(str(path), form="auto")
    assert figures["kept"] == 5 and figures["dropped"] == {} and figures["unused"] == {}


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packing", PACK)
def test_other_ways_to_compress_are_read(prepare: Prepare, tmp_path: Path, packing: str) -> None:
    packed = PACK[packing](TEXTS["blank.jsonl"].encode())
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / f"a.jsonl{packing}").write_bytes(packed)
    (tmp_path / "rows" / "b.jsonl").write_bytes(packed)
    assert prepare(str(tmp_path / "rows"), form="auto")["kept"] == 10
    (tmp_path / "rows" / "b.jsonl").write_bytes(packed[:-3])
    with pytest.raises(UserError, match="cannot be unpacked") as caught:
        prepare(str(tmp_path / "rows"), form="auto")
    assert caught.value.where == str(tmp_path / "rows" / "b.jsonl")


def test_rows_in_a_folder_are_not_left_out_unsaid(prepare: Prepare, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.jsonl", "._a.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl"):
        (folder / name).write_text(LINES[0])
    assert prepare(str(folder), form="auto")["kept"] == 1
    assert prepare(f"{folder}/.ipynb*/*.jsonl", form="auto")["kept"] == 1
    (folder / "b.jsonl.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"a file of rows in \.zip") as caught:
        prepare(str(folder), form="auto")
    assert caught.value.where == str(folder / "b.jsonl.zip")
    (folder / "b.jsonl.zip").unlink()
    (folder / "b.jsonl").symlink_to("nowhere")
    with pytest.raises(UserError, match="leads to nothing"):
        prepare(str(folder), form="auto")


def test_the_nulls_that_fill_a_column_are_no_arguments(prepare: Prepare, tokenizer_folder: str, tmp_path: Path) -> None:
    calls = [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": [{"c": None, "d": 2}]}}]
    turns = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    pq.write_table(pa.Table.from_pylist([{"messages": turns}]), tmp_path / "rows.parquet")
    caller = model(tmp_path / "caller", tokenizer_folder, CALLS)
    prepare(str(tmp_path / "rows.parquet"), form="auto", model=caller)
    ((_, learnt),) = shown(caller, tmp_path / "out" / "train")
    assert learnt == ['<call>f {"a": 1}</call><call>g {"b": [{"d": 2}]}</call><turn|>']


def test_a_line_is_named_by_its_number_in_the_file(prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(codecs.BOM_UTF8 + f"\n{LINES[0]}\n\n{{\n".encode()))
    with pytest.raises(UserError, match="malformed JSON") as caught:
        prepare(str(path), form="auto")
    assert caught.value.where == f"{path}:4"


@pytest.mark.parametrize("cut", [1, 8, 30])
def test_a_compressed_file_cut_short_is_named(prepare: Prepare, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode())[:-cut])
    with pytest.raises(UserError, match="cannot be unpacked") as caught:
        prepare(str(path), form="auto")
    assert caught.value.where == str(path)


def test_endings_of_compressed_files() -> None:
    assert [ending(name) for name in ("a.jsonl.gz", "a.CSV.XZ", "a.json.zst", "a.parquet.gz", "a.gz", "a.md")] == [
        *(".jsonl", ".csv", ".json"),
        *("", "", ""),
    ]


def test_a_dataset_saved_to_disk_is_read_alone(prepare: Prepare, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    Dataset.from_list(ROWS).save_to_disk(str(folder), num_shards=2)
    (folder / "cache-1f.arrow").write_bytes((folder / "data-00000-of-00002.arrow").read_bytes())
    assert prepare(str(folder), form="auto")["kept"] == 5


def test_a_saved_dataset_of_splits_gives_the_split_asked_for(prepare: Prepare, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    DatasetDict({"train": Dataset.from_list(ROWS[:3]), "test": Dataset.from_list(ROWS[3:])}).save_to_disk(str(folder))
    assert prepare(str(folder), form="auto")["kept"] == 3
    assert prepare("", sources=[{"path": str(folder), "split": "test"}])["kept"] == 2
    with pytest.raises(UserError, match="no split 'dev'") as caught:
        prepare("", sources=[{"path": str(folder), "split": "dev"}])
    assert "train, test" in caught.value.fix


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [{"role": "user", "content": "ask"}], "completion": [{"role": "assistant", "content": "tell"}]},
        {"prompt": [{"role": "user", "content": parts("a", "sk")}], "completion": "tell"},
        {"prompt": "ask", "completion": [{"role": "assistant", "content": parts("te", "ll")}]},
        {"prompt": parts("ask"), "response": parts("tell")},
        {"messages": [{"role": "user", "content": ["as", "k"]}, {"role": "assistant", "content": parts("tell")}]},
        {"conversations": [{"from": "human", "value": parts("ask")}, {"from": "gpt", "value": "tell"}]},
    ],
)
def test_parts_and_lists_of_messages_are_read(
    prepare: Prepare, tokenizer_folder: str, tmp_path: Path, row: dict[str, Any]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    assert prepare(str(path), form="auto")["unused"] == {}
    text = "<bos><|turn>user\nask<turn|>\n<|turn>model\ntell<turn|>\n"
    assert shown(tokenizer_folder, tmp_path / "out" / "train") == [(text, ["tell<turn|>"])]


def test_answers_in_a_prompt_are_context(prepare: Prepare, tokenizer_folder: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": turns, "completion": [{"role": "assistant", "content": "d"}]}))
    prepare(str(path), form="auto")
    ((_, learnt),) = shown(tokenizer_folder, tmp_path / "out" / "train")
    assert learnt == ["d<turn|>"]


def test_a_part_that_is_no_text_is_a_bad_row(prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": [{"type": "image", "image": "a.png"}], "completion": "x"}))
    with pytest.raises(UserError, match="a part of the kind 'image'") as caught:
        prepare(str(path), form="auto")
    assert caught.value.where == f"{path}:1"
