"""Every column of every format and every key of a turn is used, counted on screen and in dataset.json, or an error."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from data.formats.reading import LEARNT, MASKED, MEANINGFUL, SYSTEM, THOUGHTS
from models.text.packed_rows import read_rows
from models.text.prompt import load_tokenizer
from tests.data.test_tools import shown

RowsFile = Callable[..., str]
Prepare = Callable[..., dict[str, Any]]
TURNS = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}]
ROWS: dict[str, dict[str, Any]] = {
    "codev-r1": {"prompt": "ask", "response": "tell"},
    "prompt-completion": {"prompt": "ask", "completion": "tell"},
    "messages": {"messages": TURNS},
    "alpaca": {"instruction": "ask", "output": "tell"},
    "sharegpt": {"conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "tell"}]},
    "text": {"text": "tell"},
}
UNKNOWN = ["difficulty", "id", "source", "meta", "Prompt"]
VALUES: dict[str, Any] = dict.fromkeys(SYSTEM, "be brief") | {
    "history": [["before", "then"]],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
    "function_call": {"name": "f", "arguments": "{}"},
}
VALUES |= dict.fromkeys((*LEARNT, "train"), 0) | dict.fromkeys(MASKED, True) | dict.fromkeys(THOUGHTS, "hm")


tokenizer_at = functools.cache(load_tokenizer)


def outcome(prepare: Prepare, path: str, form: str, tmp_path: Path, model: str, **more: Any) -> tuple[Any, ...]:
    """("error", names) or (unused, text, supervised text)."""
    try:
        figures = prepare(path, form=form, packing="none", **more)
    except UserError as error:
        return "error", f"{error}"
    tokenizer = tokenizer_at(model)
    (row,) = read_rows(tmp_path / "out" / "train")
    said, learnt = (str(tokenizer.decode(ids.tolist())) for ids in (row.ids, row.ids[row.mask]))
    return figures["unused"], said, learnt


@pytest.mark.parametrize("form", ROWS)
def test_every_column_is_used_or_counted_or_refused(
    rows_file: RowsFile,
    prepare: Prepare,
    tokenizer_folder: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    form: str,
) -> None:
    plain, names = outcome(prepare, rows_file([ROWS[form]]), form, tmp_path, tokenizer_folder), sorted(MEANINGFUL)
    nothing = ROWS[form] | dict.fromkeys([*UNKNOWN, *names])
    assert outcome(prepare, rows_file([nothing]), form, tmp_path, tokenizer_folder) == plain
    for name in [*UNKNOWN, *names]:
        row = ROWS[form] | {name: VALUES.get(name, "some")}
        capfd.readouterr()
        found = outcome(prepare, rows_file([row]), form, tmp_path, tokenizer_folder, empty_mask="error")
        screen = capfd.readouterr().err
        if name in UNKNOWN:
            assert found == ({name: 1}, *plain[1:]) and f"unused: {name} (1)" in screen
        elif found[0] == "error":
            assert name in found[1] or "no token of the row is supervised" in found[1]
        elif found[0]:
            assert found == ({name: 1}, *plain[1:]) and name in THOUGHTS and f"unused: {name} (1)" in screen
        else:
            assert found[1] != plain[1], name  # it is in the text
            assert found[2].endswith(plain[2])
        if name not in LEARNT + MASKED or form in ("messages", "sharegpt", "text"):
            freed = outcome(prepare, rows_file([row]), form, tmp_path, tokenizer_folder, unused=[name])
            assert freed == ({name: 1}, *plain[1:])


KEYS = [*UNKNOWN, "name", "tool_call_id", "refusal", *sorted(MEANINGFUL)]


@pytest.mark.parametrize("form", ["messages", "sharegpt", "prompt-completion"])
def test_every_key_of_a_turn_is_used_or_counted_or_refused(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path, form: str
) -> None:
    two = {
        "messages": {"messages": [*TURNS, *TURNS]},
        "sharegpt": {"conversations": ROWS["sharegpt"]["conversations"] * 2},
        "prompt-completion": {"prompt": TURNS[:1], "completion": [TURNS[1], *TURNS]},
    }[form]
    plain = outcome(prepare, rows_file([two]), form, tmp_path, tokenizer_folder)
    assert plain[2] == "tell<turn|>" * 2
    for key in KEYS:
        row = json.loads(json.dumps(two))
        turns = row.get("messages") or row.get("conversations") or row["completion"]
        turns[0 if form == "prompt-completion" else 1][key] = VALUES.get(key, "some")
        found = outcome(prepare, rows_file([row]), form, tmp_path, tokenizer_folder)
        if key in (*LEARNT, *MASKED):
            assert found == ({}, plain[1], "tell<turn|>")  # the first answer is context
        elif found[0] == "error":
            assert key in MEANINGFUL and (key in found[1] or "tool_calls" in found[1])
        else:
            assert found == ({f"messages[].{key}": 1}, *plain[1:])
        freed = outcome(prepare, rows_file([row]), form, tmp_path, tokenizer_folder, unused=[key])
        assert freed == ({f"messages[].{key}": 1}, *plain[1:])


@pytest.mark.parametrize("value", [0.5, "no", 2, [0, 1]])
def test_a_mask_that_is_no_yes_or_no_is_an_error(rows_file: RowsFile, prepare: Prepare, value: Any) -> None:
    row = {"messages": [TURNS[0], TURNS[1] | {"weight": value}]}
    with pytest.raises(UserError, match="is neither 0 nor 1"):
        prepare(rows_file([row]), form="messages")


def test_masks_that_disagree_or_ask_for_a_question_are_errors(rows_file: RowsFile, prepare: Prepare) -> None:
    with pytest.raises(UserError, match="disagree"):
        prepare(rows_file([{"messages": [TURNS[0], TURNS[1] | {"train": True, "masked": 1}]}]), form="messages")
    with pytest.raises(UserError, match="a user turn is not learnt"):
        prepare(rows_file([{"messages": [TURNS[0] | {"train": True}, TURNS[1]]}]), form="messages")
    prepare(rows_file([{"messages": [TURNS[0] | {"train": False}, TURNS[1] | {"train": True}]}]), form="messages")


@pytest.mark.parametrize("form", [form for form in ROWS if form != "text"])
def test_system_and_history_stand_before_the_turns(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path, form: str
) -> None:
    row = ROWS[form] | {"system": "be brief", "history": [["before", "then"]]}
    prepare(rows_file([row]), form=form)
    text = (
        "<bos><|turn>system\nbe brief<turn|>\n<|turn>user\nbefore<turn|>\n<|turn>model\nthen<turn|>\n"
        "<|turn>user\nask<turn|>\n<|turn>model\ntell<turn|>\n"
    )
    assert shown(tokenizer_folder, tmp_path / "out" / "train") == [(text, ["then<turn|>", "tell<turn|>"])]


def test_a_system_column_beside_a_system_turn_must_be_the_same(rows_file: RowsFile, prepare: Prepare) -> None:
    row = {"messages": [{"role": "system", "content": "rules"}, *TURNS], "system": "rules"}
    assert prepare(rows_file([row]), form="messages")["kept"] == 1
    with pytest.raises(UserError, match="a column 'system' and a system turn"):
        prepare(rows_file([row | {"system": "others"}]), form="messages")


@pytest.mark.parametrize("form", [form for form in ROWS if form != "text"])
@pytest.mark.parametrize("tail", ["<think>never ends", "<think>a</think>b <think>and again"])
def test_a_thought_that_does_not_end_is_dropped_in_every_format(
    rows_file: RowsFile, prepare: Prepare, form: str, tail: str
) -> None:
    row = json.loads(json.dumps(ROWS[form]).replace("tell", tail))
    figures = prepare(rows_file([ROWS[form], row]), form=form)
    assert figures["dropped"] == {"cut off": 1} and figures["kept"] == 1


CODE = ['```verilog\n// emits "</think>"\n```', "use `</think>` here", "x // </think> and <think>", 'say "<think>"']


@pytest.mark.parametrize("form", [form for form in ROWS if form != "text"])
@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("thought", ["", "<think>ok</think>\n", "thought of it\n</think>\n"])
def test_a_tag_in_code_is_code(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path, form: str, code: str, thought: str
) -> None:
    quoted = json.dumps(f"{thought}{code}")[1:-1]
    prepare(rows_file([json.loads(json.dumps(ROWS[form]).replace("tell", quoted))]), form=form)
    ((_, learnt),) = shown(tokenizer_folder, tmp_path / "out" / "train")
    assert learnt == [f"{code}<turn|>"]


@pytest.mark.parametrize("form", [form for form in ROWS if form != "text"])
@pytest.mark.parametrize(
    ("answer", "learnt"),
    [
        ("a tag like </think> ends it", None),
        ("thought\n</think> told", "told"),
        ("thought</think>\r\ntold", "told"),
        ("spoken of: </think> here\n</think>\n\ntold", "told"),
        ("one <think>two</think> three", "one  three"),
    ],
)
def test_a_thought_that_is_left_out_is_counted(
    rows_file: RowsFile,
    prepare: Prepare,
    tokenizer_folder: str,
    tmp_path: Path,
    form: str,
    answer: str,
    learnt: str | None,
) -> None:
    row = json.loads(json.dumps(ROWS[form]).replace("tell", json.dumps(answer)[1:-1]))
    figures = prepare(rows_file([row]), form=form)
    assert figures["unused"] == ({} if learnt is None else {"<think>": 1})
    assert shown(tokenizer_folder, tmp_path / "out" / "train")[0][1] == [
        f"{answer if learnt is None else learnt}<turn|>"
    ]


def test_duplicates_are_kept_and_said_or_dropped(
    rows_file: RowsFile, prepare: Prepare, capfd: pytest.CaptureFixture[str]
) -> None:
    path = rows_file([ROWS["messages"], ROWS["messages"], {"messages": [*TURNS, *TURNS]}])
    figures = prepare(path, form="messages")
    assert (figures["kept"], figures["duplicates"], figures["dropped"]) == (3, 1, {})
    assert "1 exact duplicates kept" in capfd.readouterr().err
    figures = prepare(path, form="messages", duplicates="drop")
    assert (figures["kept"], figures["duplicates"], figures["dropped"]) == (2, 1, {"duplicate": 1})
    assert "left out: 1 duplicate" in capfd.readouterr().err


def test_columns_read_under_another_name_are_used(rows_file: RowsFile, prepare: Prepare) -> None:
    path = rows_file([{"question": "q", "reply": "r", "prompt": "shadowed", "tag": "t", "more": 1}])
    source = {"path": path, "format": "prompt-completion", "columns": {"prompt": "question", "completion": "reply"}}
    figures = prepare("", sources=[source], validation_group="tag")
    assert figures["unused"] == {"prompt (renamed over)": 1, "more": 1}


@pytest.mark.parametrize(
    "bad", ['{"messages": ' + "[" * 990 + "]" * 990 + "}", '{"messages": 1' + "0" * 5000 + "}", "[" * 100_000]
)
def test_a_row_that_no_reader_survives_is_named(rows_file: RowsFile, prepare: Prepare, bad: str) -> None:
    path = rows_file([ROWS["messages"], bad.encode()])
    with pytest.raises(UserError) as caught:
        prepare(path, form="messages")
    assert caught.value.where == f"{path}:2"
    assert prepare(path, form="messages", bad_rows="drop")["dropped"] == {"bad row": 1}
