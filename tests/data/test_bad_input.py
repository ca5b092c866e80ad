"""Whatever a file of rows may hold: a clear error that names the place, or a counted drop, as the recipe says."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from common.errors import UserError
from models.text.packed_rows import read_rows
from models.text.prompt import load_tokenizer

RowsFile = Callable[..., str]
Prepare = Callable[..., dict[str, Any]]
ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(9)]
ROOT = Path(__file__).parents[2]


def written(path: Path, content: bytes | str) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


GARBAGE = random.Random(0).randbytes(5000)
FILES: dict[str, tuple[str, bytes, str, str]] = {
    "parquet garbage": ("a.parquet", GARBAGE, "cannot be read", ""),
    "parquet empty": ("a.parquet", b"", "cannot be read", ""),
    "arrow garbage": ("a.arrow", GARBAGE, "cannot be read", ""),
    "feather garbage": ("a.feather", GARBAGE, "cannot be read", ""),
    "jsonl garbage": ("a.jsonl", GARBAGE, "not UTF-8|malformed JSON", ":1"),
    "csv garbage": ("a.csv", b"prompt,completion\n" + GARBAGE, "malformed CSV|not as many fields", ":"),
    "csv open quote": ("a.csv", b'prompt,completion\np,c\np,"c\n', "malformed CSV: unexpected end", ":3"),
    "csv too few": ("a.csv", b"prompt,completion\np,c\np\n", "not as many fields", ":3"),
    "csv too many": ("a.csv", b"prompt,completion\np,c,d\n", "not as many fields", ":2"),
    "csv other columns": ("a.csv", b"question,answer\np,c\n", "no column 'completion'", ":2"),
    "csv empty": ("a.csv", b"", "0 rows left", ""),
    "csv header alone": ("a.csv", b"prompt,completion\n", "0 rows left", ""),
    "array cut": ("a.json", b'[{"prompt": "p", "completion": "c"},\n {"prompt": "p"', "malformed JSON array", ":2"),
    "array no comma": ("a.json", b'[{"prompt": "p", "completion": "c"}\n{}]', "no comma", ":1"),
    "array of lists": ("a.json", b'[\n\n["p", "c"]]', "must be a JSON object, this is a list", ":3"),
    "array empty": ("a.json", b"[ ]", "0 rows left", ""),
    "array and more": ("a.json", b'[{"prompt": "p", "completion": "c"}]\n\n [{}]', "stands after the array", ":3"),
    "array a line": ("a.jsonl", b'[{"prompt": "p", "completion": "c"}]\n' * 2, "stands after the array", ":2"),
    "array key twice": ("a.json", b'[{"prompt": "p", "prompt": "q", "completion": "c"}]', "stands twice", ":1"),
    "jsonl key twice": ("a.jsonl", b'{"prompt": "p", "completion": "c", "prompt": "q"}', "stands twice", ":1"),
    "csv column twice": ("a.csv", b"prompt,prompt,completion\np,q,c\n", "two columns are called 'prompt'", ":1"),
    "array not text": ("a.json", b"[" + GARBAGE, "not UTF-8", ""),
    "jsonl empty": ("a.jsonl", b"", "0 rows left", ""),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_named(prepare: Prepare, tmp_path: Path, case: str) -> None:
    name, content, message, place = FILES[case]
    path = written(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as caught:
        prepare(path, form="prompt-completion")
    assert caught.value.where.startswith(f"{path}{place}") and caught.value.fix


def test_a_table_of_what_json_has_not_is_named(prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for columns, message in (
        ({"prompt": [b"p"], "completion": ["c"]}, "must be a string, this is bytes"),
        ({"prompt": ["p"], "completion": ["c"], "tools": [[{"name": b"x"}]]}, "what JSON cannot: Object of type bytes"),
    ):
        pyarrow.parquet.write_table(pa.table(columns), path)
        with pytest.raises(UserError, match=message) as caught:
            prepare(str(path), form="auto")
        assert caught.value.where == f"{path}:1"
    twice = pa.Table.from_arrays([pa.array(["p"])] * 3, ["prompt", "completion", "prompt"])
    pyarrow.parquet.write_table(twice, path)
    with pytest.raises(UserError, match="two columns are called 'prompt'"):
        prepare(str(path), form="auto")


def test_a_key_that_is_no_text_is_counted(rows_file: RowsFile, prepare: Prepare) -> None:
    row = b'{"prompt": "p", "completion": "c", "\\ud83d": 1}'
    assert prepare(rows_file([row]), form="auto")["unused"] == {"\ud83d": 1}


@pytest.mark.parametrize("cut", [1, 4, 20, 200])
@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_a_table_cut_short_is_named(prepare: Prepare, tmp_path: Path, kind: str, cut: int) -> None:
    path, table = tmp_path / f"a.{kind}", pa.Table.from_pylist(ROWS)
    write = pyarrow.parquet.write_table if kind == "parquet" else pyarrow.feather.write_feather
    write(table, str(path))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match="cannot be read") as caught:
        prepare(str(path), form="prompt-completion")
    assert caught.value.where == str(path)


def test_a_plain_folder_reads_every_known_ending(prepare: Prepare, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    (folder / "deeper").mkdir(parents=True)
    table = pa.Table.from_pylist(ROWS[:1])
    pyarrow.feather.write_feather(table, str(folder / "a.feather"))
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS[1:2]), folder / "b.PARQUET")
    with pa.ipc.new_stream(str(folder / "c.arrow"), table.schema) as stream:
        stream.write_table(pa.Table.from_pylist(ROWS[2:3]))
    written(folder / "d.csv", '\ufeffprompt,completion\n"p3","c3"\n')
    written(folder / "e.json", json.dumps(ROWS[4:6], indent=2))
    written(folder / "f.json", "".join(json.dumps(row) + "\n" for row in ROWS[6:7]))
    written(folder / "g.ndjson", json.dumps(ROWS[7]))
    written(folder / "deeper" / "h.jsonl", json.dumps(ROWS[8]) + "\r\n")
    written(folder / "README.md", "# not rows")
    figures = prepare(str(folder), form="auto")
    assert figures["kept"] == len(ROWS) and figures["dropped"] == {}
    with pytest.raises(UserError, match="no files of rows") as caught:
        prepare(str(folder), sources=[{"path": f"{folder}/*.md"}])
    assert ".feather" in caught.value.fix


def test_rows_of_nothing_and_of_ten_megabytes(rows_file: RowsFile, prepare: Prepare) -> None:
    huge = "module m; wire w; endmodule\n" * 360_000
    rows = [{"prompt": "", "completion": ""}, {"prompt": "p", "completion": huge}, {"prompt": "", "completion": "c"}]
    figures = prepare(rows_file(rows), form="prompt-completion", near_duplicates=0.8)
    assert figures["dropped"] == {"empty answer": 1, "too long": 1} and figures["kept"] == 1
    assert figures["lengths"]["max"] > 1_000_000


def test_a_word_of_ten_megabytes(rows_file: RowsFile, prepare: Prepare) -> None:
    figures = prepare(rows_file([{"text": "x" * 10_000_000}, {"text": "y"}]), form="text")
    assert figures["dropped"] == {"too long": 1} and figures["kept"] == 1


def model(folder: Path, tokenizer_folder: str, template: str = "", **settings: Any) -> str:
    folder.mkdir()
    for file in Path(tokenizer_folder).glob("*"):
        if file.name.startswith(("token", "chat")):
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | settings))
    if template:
        (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def test_a_pad_that_is_the_eos_is_learnt_where_it_ends_a_document(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    place = model(tmp_path / "model", tokenizer_folder, pad_token="<eos>")
    tokenizer = load_tokenizer(place)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    prepare(rows_file([{"text": "module m;"}, {"text": "module n;"}]), form="text", model=place, packing="none")
    for row in read_rows(tmp_path / "out" / "train"):
        assert row.ids[-1] == tokenizer.eos_token_id and row.mask[-1] and not row.mask[0]


RAISES = (
    "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}"
    "{%- for m in messages -%}<|turn>{{ m['role'] }}\n{{ m['content'] }}<turn|>\n{% endfor %}"
    "{%- if add_generation_prompt -%}<|turn>assistant\n{% endif %}"
)


def test_a_template_that_raises_on_system_turns(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    place = model(tmp_path / "model", tokenizer_folder, RAISES)
    said = [("system", "rules"), ("user", "ask"), ("assistant", "tell")]
    messages = [{"role": role, "content": text} for role, text in said]
    path = rows_file([{"messages": messages[1:]}, {"messages": messages}, {"messages": [messages[0], messages[2]]}])
    with pytest.raises(UserError, match="System role not supported") as caught:
        prepare(path, form="messages", model=place)
    assert caught.value.where == f"{path}:2"
    dropped = prepare(path, form="messages", model=place, bad_rows="drop")
    assert dropped["kept"] == 1 and dropped["dropped"] == {"refused by the template": 2}
    folded = prepare(path, form="messages", model=place, bad_rows="drop", system="fold", packing="none")
    assert folded["kept"] == 2 and folded["dropped"] == {"refused by the template": 1}
    tokenizer = load_tokenizer(place)
    texts = [tokenizer.decode(row.ids.tolist()) for row in read_rows(tmp_path / "out" / "train")]
    assert any("rules\n\nask<turn|>" in str(text) for text in texts)


def test_no_template_is_an_error_whatever_happens_to_bad_rows(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    place = Path(model(tmp_path / "model", tokenizer_folder))
    (place / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        prepare(rows_file(ROWS), form="prompt-completion", model=str(place), bad_rows="drop")


def test_nothing_half_written_stays_behind(rows_file: RowsFile, tokenizer_folder: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": "word " * 50} for i in range(3000)]
    path = rows_file([*rows, b"{"])
    command = [sys.executable, "-m", "tapeout", "data", "--model", tokenizer_folder, "--input", path]
    clean = {name: value for name, value in os.environ.items() if name != "TAPEOUT_DEBUG"}
    out = tmp_path / "result" / "out"
    done = subprocess.run([*command, "--out", str(out)], cwd=ROOT, env=clean, capture_output=True, text=True)
    assert done.returncode == 2 and f"{path}:3001" in done.stderr and "Traceback" not in done.stderr
    assert not out.exists() and not list((tmp_path / "result").rglob("*.array_record"))
