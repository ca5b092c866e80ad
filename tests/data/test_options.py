"""Every option of the data section does what it says, seen in the shards or in the rows kept."""

import datetime
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from common.errors import UserError
from data.config import DataConfig, Source
from data.formats.example import Dropped
from data.formats.reading import Reading
from data.formats.rows import example_of
from data.report import length_figures
from data.sources.files import rows_of
from models.text.packed_rows import read_rows
from models.text.prompt import load_tokenizer

RowsFile = Callable[..., str]
Prepare = Callable[..., dict[str, Any]]
FENCE = "```verilog\nmodule m;\nendmodule\n```"


def learnt(folder: Path, tokenizer_folder: str) -> list[tuple[str, str]]:
    """(text, supervised text) of each shard row; use with packing none."""
    tokenizer = load_tokenizer(tokenizer_folder)
    rows = list(read_rows(folder))
    return [(str(tokenizer.decode(r.ids.tolist())), str(tokenizer.decode(r.ids[r.mask].tolist()))) for r in rows]


def turns(row: dict[str, Any], form: str, code_only: bool = False) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in example_of(row, "f:1", form, Reading(), code_only).messages]


def test_alpaca() -> None:
    assert turns({"instruction": "i", "output": "o"}, "alpaca") == [("user", "i"), ("assistant", "o")]
    row = {"instruction": "i", "input": "x", "output": "<think>t</think>o"}
    assert turns(row, "alpaca") == [("user", "i\n\nx"), ("assistant", "o")]
    assert turns(row | {"input": " "}, "alpaca")[0] == ("user", "i")
    with pytest.raises(UserError, match="no column 'output'"):
        turns({"instruction": "i"}, "alpaca")


def test_sharegpt() -> None:
    said = [("system", "s"), ("human", "h"), ("gpt", "<think>t</think>g")]
    row = {"conversations": [{"from": who, "value": text} for who, text in said]}
    assert turns(row, "sharegpt") == [("system", "s"), ("user", "h"), ("assistant", "g")]
    with pytest.raises(UserError, match="is from 'nobody'"):
        turns({"conversations": [{"from": "nobody", "value": "x"}]}, "sharegpt")
    with pytest.raises(UserError, match="must be an object with from and value"):
        turns({"conversations": ["x"]}, "sharegpt")


def test_code_keeps_the_first_verilog_fence() -> None:
    row = {"prompt": "p", "completion": f"So:\n```c\nint x;\n```\n{FENCE}\nand ```v\nx\n```"}
    assert turns(row, "prompt-completion", code_only=True)[1] == ("assistant", FENCE)
    with pytest.raises(Dropped, match="no Verilog fence"):
        turns({"prompt": "p", "completion": "none"}, "prompt-completion", code_only=True)


def test_the_stage_counts_answers_without_code(rows_file: RowsFile, prepare: Prepare) -> None:
    rows = [{"prompt": "p", "completion": FENCE}, {"prompt": "p", "completion": "none"}]
    figures = prepare(rows_file(rows), form="prompt-completion", answer="code")
    assert figures["dropped"] == {"no Verilog fence": 1}


def test_columns(rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path) -> None:
    path = rows_file([{"question": "q", "reply": "r"}])
    source = {"path": path, "format": "prompt-completion", "columns": {"prompt": "question", "completion": "reply"}}
    prepare(path, sources=[source])
    assert learnt(tmp_path / "out" / "train", tokenizer_folder)[0][1] == "r<turn|>"
    with pytest.raises(UserError, match="no column 'missing'") as caught:
        prepare(path, sources=[source | {"columns": {"prompt": "missing"}}])
    assert caught.value.where == f"{path}:1"


def test_shuffle_depends_on_the_seed_alone(rows_file: RowsFile) -> None:
    path = rows_file({"n": i} for i in range(200))

    def order(**more: Any) -> list[int]:
        return [row["n"] for _, row in rows_of(Source(path=path, **more)) if isinstance(row, dict)]

    first = order(shuffle=1)
    assert order() == sorted(first) == list(range(200)) and first != order()
    assert order(shuffle=1) == first != order(shuffle=2)
    assert order(shuffle=1, limit=5) == first[:5]


def test_train_on_the_last_turn(rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path) -> None:
    said = [("user", "q"), ("assistant", "first"), ("user", "r"), ("assistant", "second")]
    path = rows_file([{"messages": [{"role": role, "content": text} for role, text in said]}])
    for train_on, supervised in (("all_assistant_turns", "first<turn|>second<turn|>"), ("last_turn", "second<turn|>")):
        prepare(path, name=train_on, form="messages", train_on=train_on)
        assert learnt(tmp_path / train_on / "train", tokenizer_folder)[0][1] == supervised


def _model(tokenizer_folder: str, folder: Path) -> Path:
    folder.mkdir()
    for file in Path(tokenizer_folder).glob("token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_fold_system(rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path) -> None:
    model = _model(tokenizer_folder, tmp_path / "model")
    drops = "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }};{% endfor %}"
    (model / "chat_template.jinja").write_text(drops + "{% if add_generation_prompt %}[assistant]{% endif %}")
    said = [("system", "rules"), ("user", "ask"), ("assistant", "tell")]
    messages = [{"role": role, "content": text} for role, text in said]
    with pytest.raises(UserError, match="drops the system turn"):
        prepare(rows_file([{"messages": messages}]), form="messages", model=str(model))
    prepare(rows_file([{"messages": messages}]), form="messages", model=str(model), system="fold")
    assert learnt(tmp_path / "out" / "train", str(model)) == [("[user]rules\n\nask;[assistant]tell;", "tell;")]
    path = rows_file([{"messages": [messages[0], messages[2]]}])
    with pytest.raises(UserError, match="no user turn after it") as caught:
        prepare(path, form="messages", model=str(model), system="fold")
    assert caught.value.where == f"{path}:1"


def test_nothing_supervised(rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path) -> None:
    model = _model(tokenizer_folder, tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    kept = {k: v for k, v in settings.items() if k not in ("bos_token", "eos_token")}
    (model / "tokenizer_config.json").write_text(json.dumps(kept))
    path = rows_file([{"text": "module m; endmodule"}, {"text": "x"}])
    with pytest.raises(UserError, match="no token of the row is supervised") as caught:
        prepare(path, form="text", model=str(model))
    assert caught.value.where == f"{path}:2"
    figures = prepare(path, form="text", model=str(model), empty_mask="drop")
    assert figures["dropped"] == {"nothing supervised": 1} and figures["kept"] == 1


def test_a_group_stays_on_one_side(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    path = rows_file({"prompt": f"g{i % 20}", "completion": f"c{i}", "family": i % 20} for i in range(100))
    prepare(path, form="prompt-completion", packing="none", validation=0.4, validation_group="family")
    sides = [
        {
            text.partition("user\n")[2].partition("<turn|>")[0]
            for text, _ in learnt(tmp_path / "out" / side, tokenizer_folder)
        }
        for side in ("train", "validation")
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 20


def test_a_group_that_json_cannot_hold(prepare: Prepare, tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    row = {"prompt": "p", "completion": "c", "day": datetime.date(2026, 1, 1)}
    pyarrow.parquet.write_table(pa.Table.from_pylist([row]), path)
    with pytest.raises(UserError, match="is a date, which JSON cannot hold") as caught:
        prepare(path, form="prompt-completion", validation_group="day")
    assert caught.value.where == f"{path}:1"


def test_weights_are_for_all_sources_or_none() -> None:
    with pytest.raises(ValueError, match="every source a weight, or none"):
        DataConfig.model_validate({"sources": [{"path": "a", "weight": 1}, {"path": "b"}]})


def test_quantiles_of_the_lengths(rows_file: RowsFile, prepare: Prepare) -> None:
    found = length_figures(Counter({10: 50, 20: 45, 100: 4, 300: 1}), 50)
    assert {q: found[q] for q in ("p50", "p95", "p99", "p99.5", "max")} == {
        "p50": 10,
        "p95": 20,
        "p99": 100,
        "p99.5": 300,
        "max": 300,
    }
    assert [found["kept_at"][room] for room in ("50", "128", "512")] == [0.95, 0.99, 1.0]
    figures = prepare(rows_file([{"text": "module m;"}]), form="text")
    assert figures["lengths"]["p50"] == figures["lengths"]["max"] == figures["tokens"]
