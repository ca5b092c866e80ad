"""The stage end to end: what lands in the shards, the same bytes each time, and every bad input named by file:line."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from data.formats.example import Example
from data.stage import in_validation
from models.text.packed_rows import count_rows, read_rows
from models.text.prompt import load_tokenizer, prompt_ids
from models.text.template import template_digest

RowsFile = Callable[..., str]
Prepare = Callable[..., dict[str, Any]]
CodevRow = Callable[[int], dict[str, str]]


def conversation(i: int, answer: str = "yes") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": answer}]}


def segments(folder: Path) -> list[tuple[list[int], list[int]]]:
    """(ids, supervised ids) of every conversation in a folder of shards."""
    found = []
    for row in read_rows(folder):
        start = 0
        for n in row.lengths:
            ids, mask = row.ids[start : start + n], row.mask[start : start + n]
            found.append((ids.tolist(), ids[mask].tolist()))
            start += n
    return found


def test_shards_hold_the_rendered_rows(
    rows_file: RowsFile, prepare: Prepare, codev_row: CodevRow, tokenizer_folder: str, tmp_path: Path
) -> None:
    figures = prepare(rows_file(codev_row(i) for i in range(40)), max_length=256)
    tokenizer = load_tokenizer(tokenizer_folder)
    found = {
        tokenizer.decode(ids): tokenizer.decode(supervised) for ids, supervised in segments(tmp_path / "out" / "train")
    }
    for i in range(40):
        row = codev_row(i)
        fence = row["response"].rpartition("<answer>\n")[2].removesuffix("\n</answer>")
        turns = f"<bos><|turn>user\n{row['prompt']}<turn|>\n<|turn>model\n{fence}<turn|>\n"
        assert found[turns] == f"{fence}<turn|>"
    assert len(found) == 40
    assert {name: figures[name] for name in ("rows", "kept", "dropped", "max_length")} == {
        "rows": 40,
        "kept": 40,
        "dropped": {},
        "max_length": 256,
    }
    assert figures["tokens"] == sum(len(ids) for ids, _ in segments(tmp_path / "out" / "train"))
    assert figures["supervised"] == sum(len(ids) for _, ids in segments(tmp_path / "out" / "train"))
    assert figures["packed_rows"] == count_rows(tmp_path / "out" / "train")
    assert figures["efficiency"] == round(figures["tokens"] / (256 * figures["packed_rows"]), 4)
    assert figures["template_digest"] == template_digest(tokenizer)


def test_probes_are_prompts_of_the_data(
    rows_file: RowsFile, prepare: Prepare, codev_row: CodevRow, tokenizer_folder: str
) -> None:
    probes = prepare(rows_file(codev_row(i) for i in range(20)))["probes"]
    tokenizer = load_tokenizer(tokenizer_folder)
    assert len(probes) == 8
    for i, probe in enumerate(probes):
        assert probe["messages"] == [{"role": "user", "content": codev_row(i)["prompt"]}]
        assert probe["ids"] == prompt_ids(tokenizer, probe["messages"])


def test_documents_are_supervised_from_bos_to_eos(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    prepare(rows_file([{"text": "module m; // <|turn>\nendmodule\n"}]), form="text")
    tokenizer = load_tokenizer(tokenizer_folder)
    ((ids, supervised),) = segments(tmp_path / "out" / "train")
    assert tokenizer.decode(ids) == "<bos>module m; // <|turn>\nendmodule\n<eos>"
    assert supervised == ids[1:] and tokenizer.convert_tokens_to_ids("<|turn>") not in ids


def test_rows_left_out_are_counted(rows_file: RowsFile, prepare: Prepare, codev_row: CodevRow) -> None:
    rows = [codev_row(0), codev_row(1), codev_row(0), {"prompt": "p", "response": "<think>a</think><answer> </answer>"}]
    rows += [{"prompt": "p", "response": "<think>cut"}, {"prompt": "long " * 500, "response": "x"}]
    figures = prepare(rows_file(rows), max_length=256, duplicates="drop")
    assert figures["dropped"] == {"cut off": 1, "duplicate": 1, "empty answer": 1, "too long": 1}
    assert figures["rows"] == 6 and figures["kept"] == 2


def test_limit_and_no_packing(rows_file: RowsFile, prepare: Prepare, codev_row: CodevRow) -> None:
    figures = prepare(rows_file(codev_row(i) for i in range(9)), limit=5, packing="none")
    assert figures["rows"] == figures["packed_rows"] == 5


def test_validation_is_decided_by_the_row(rows_file: RowsFile, prepare: Prepare, tmp_path: Path) -> None:
    rows = [conversation(i) for i in range(300)]

    def sides(name: str, some: list[dict[str, Any]], seed: int = 0) -> tuple[set[str], set[str]]:
        prepare(rows_file(some), name=name, form="messages", validation=0.2, seed=seed)
        train, validation = (segments(tmp_path / name / side) for side in ("train", "validation"))
        return {str(ids) for ids, _ in train}, {str(ids) for ids, _ in validation}

    train, validation = sides("a", rows)
    assert len(train) + len(validation) == 300 and not train & validation and 30 < len(validation) < 90
    train_reversed, validation_fewer = sides("b", rows[::-1][:200])
    assert train_reversed < train and validation_fewer < validation
    assert sides("c", rows, seed=1)[1] != validation


def test_validation_takes_the_share_asked_for() -> None:
    examples = [Example("", text=str(i)) for i in range(4000)]
    for share in (0.0, 0.02, 0.5):
        count = sum(in_validation(example, share, 3) for example in examples)
        assert abs(count - share * 4000) <= 4 * (4000 * share * (1 - share)) ** 0.5


def test_the_same_inputs_give_the_same_bytes(
    rows_file: RowsFile, prepare: Prepare, codev_row: CodevRow, tmp_path: Path
) -> None:
    path = rows_file(codev_row(i) for i in range(600))

    def digests(name: str) -> dict[str, str]:
        prepare(path, name=name, validation=0.1, seed=4)
        files = [f for f in (tmp_path / name).rglob("*") if f.is_file()]
        return {f.relative_to(tmp_path / name).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    first = digests("a")
    assert set(first) == {"dataset.json", "train/00000.array_record", "validation/00000.array_record"}
    assert digests("b") == first
    assert digests("a") == first  # over what an earlier attempt left


BAD = {
    "malformed": ("codev-r1", b'{"prompt": "p", "resp', "malformed JSON"),
    "not an object": ("codev-r1", b"[1, 2]", "must be a JSON object, this is a list"),
    "binary": ("codev-r1", b"\xff\xfe\x00\x9c", "not UTF-8"),
    "deep": ("codev-r1", b"[" * 100_000, "nested too deeply"),
    "missing column": (
        "codev-r1",
        {"prompt": "p", "answer": "x"},
        "no column 'response' .columns here: 'prompt', 'answer'",
    ),
    "missing text": ("text", {"content": "x"}, "no column 'text'"),
    "missing completion": ("prompt-completion", {"prompt": "x"}, "no column 'completion'"),
    "wrong type": ("codev-r1", {"prompt": "p", "response": 3}, "'response' must be a string, this is a number"),
    "null": ("prompt-completion", {"prompt": None, "completion": "x"}, "'prompt' must be a string, this is null"),
    "messages no list": ("messages", {"messages": {"role": "user"}}, "'messages' must be a list"),
    "message no object": ("messages", {"messages": ["hi"]}, "messages.0. must be an object"),
    "message no content": ("messages", {"messages": [{"role": "user"}]}, "no column 'content'"),
    "role": ("messages", {"messages": [{"role": "model", "content": "x"}]}, "the role 'model'"),
    "no answer": ("messages", {"messages": [{"role": "user", "content": "x"}]}, "no assistant turn"),
    "no messages": ("messages", {"messages": []}, "no assistant turn"),
    "surrogate": ("text", b'{"text": "\\ud800"}', "surrogate"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_named_by_file_and_line(
    rows_file: RowsFile, prepare: Prepare, codev_row: CodevRow, case: str
) -> None:
    form, bad, message = BAD[case]
    good = {"codev-r1": codev_row(0), "text": {"text": "x"}, "messages": conversation(0)}
    good["prompt-completion"] = {"prompt": "p", "completion": "c"}
    path = rows_file([good[form], bad, good[form]])
    with pytest.raises(UserError, match=message) as caught:
        prepare(path, form=form)
    assert caught.value.where == f"{path}:2" and caught.value.fix


def test_what_the_template_refuses_is_named_by_file_and_line(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in Path(tokenizer_folder).glob("token*"):
        (model / file.name).write_bytes(file.read_bytes())
    path = rows_file([conversation(0), conversation(1, "no")])

    def failure(template: str) -> UserError:
        (model / "chat_template.jinja").write_text(template)
        with pytest.raises(UserError) as caught:
            prepare(path, form="messages", model=str(model))
        return caught.value

    refuses = "{% if messages[0]['content'] == 'q1' %}{{ raise_exception('not q1') }}{% endif %}"
    error = failure(refuses + "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert "not q1" in error.what and error.where == f"{path}:2"
    error = failure(
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}{{ messages | length }}"
    )
    assert error.where == f"{path}:1"


def test_nothing_left_says_why(rows_file: RowsFile, prepare: Prepare, codev_row: CodevRow) -> None:
    with pytest.raises(UserError, match=r"0 rows left to train on \(0 read; no rows at all\)"):
        prepare(rows_file([]))
    with pytest.raises(UserError, match=r"2 read; 1 duplicate, 1 too long"):
        prepare(rows_file([codev_row(0), codev_row(0)]), max_length=8, duplicates="drop")
    with pytest.raises(UserError, match="no such file"):
        prepare("/nowhere/rows.jsonl")


def test_as_a_process(rows_file: RowsFile, codev_row: CodevRow, tokenizer_folder: str, tmp_path: Path) -> None:
    def stage(rows: list[Any]) -> subprocess.CompletedProcess[str]:
        out = tmp_path / "out.partial"
        out.mkdir(exist_ok=True)
        job = {
            "config": {"sources": [{"path": rows_file(rows)}]},
            "inputs": {"model": tokenizer_folder},
            "out": str(out),
        }
        (tmp_path / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", "data", str(tmp_path / "job.json")]
        clean = {name: value for name, value in os.environ.items() if name != "TAPEOUT_DEBUG"}
        return subprocess.run(command, cwd=Path(__file__).parents[2], env=clean, capture_output=True, text=True)

    bad = stage([codev_row(0), b"{"])
    assert bad.returncode == 2 and "rows.jsonl:2" in bad.stderr and "Traceback" not in bad.stderr
    good = stage([codev_row(i) for i in range(5)])
    assert good.returncode == 0 and good.stdout == "" and "\x1b" not in good.stderr
    metrics = json.loads((tmp_path / "out.partial" / "metrics.json").read_text())
    assert metrics["rows"] == 5 and all(isinstance(value, int | float) for value in metrics.values())
