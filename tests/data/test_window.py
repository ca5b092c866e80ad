"""Over-long rows are cut between whole turns and whole modules; every answer is learnt once."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data.formats.example import Example
from data.window import parts_of, windows
from models.text.packed_rows import read_rows
from models.text.prompt import load_tokenizer
from tests.data.test_bad_input import model

RowsFile = Callable[..., str]
Prepare = Callable[..., dict[str, Any]]
TEXTS = st.lists(st.integers(1, 9).map(lambda n: "x" * n), min_size=1, max_size=8)


def characters(example: Example) -> int:
    return len(example.content.replace("\n", ""))


def talk(answers: list[str], system: str = "") -> Example:
    turns = [("system", system)] if system else []
    for i, answer in enumerate(answers):
        turns += [("user", str(i)), ("assistant", answer)]
    return Example("f:1", tuple({"role": role, "content": text} for role, text in turns))


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.sampled_from(["", "ss"]), st.integers(3, 20))
def test_windows_hold_every_exchange_that_fits_once_and_in_order(answers: list[str], system: str, room: int) -> None:
    whole = talk(answers, system)
    found = list(windows(whole, room, characters, last_only=False))
    assert all(characters(window) <= room for window in found)
    pairs = [
        (one.messages[i]["content"], one.messages[i + 1]["content"])
        for one in found
        for i in range(len(one.messages))
        if one.messages[i]["role"] == "user"
    ]
    fits = [(str(i), answer) for i, answer in enumerate(answers) if len(system) + 1 + len(answer) <= room]
    assert pairs == fits
    if system:
        assert all([m["role"] for m in one.messages].count("system") == 1 for one in found)
    for before, after in pairwise(found):
        first = next(message["content"] for message in after.messages if message["role"] == "assistant")
        assert len(fits) < len(answers) or characters(before) + 1 + len(first) > room


def test_the_last_turn_keeps_what_fits_before_it() -> None:
    whole = talk(["aaaa", "bb", "cc"])
    assert [one.content for one in windows(whole, 6, characters, True)] == ["1\nbb\n2\ncc"]
    assert [one.content for one in windows(whole, 3, characters, True)] == ["2\ncc"]
    assert list(windows(whole, 2, characters, True)) == []


DOCUMENT = """// a module that is not one
`timescale 1ns/1ps

module a(input x);

  // endmodule
  wire y;

endmodule : a

/* module z
endmodule */
module b; endmodule module d(

); endmodule
module c;
endmodule
"""


def test_a_document_is_cut_between_modules() -> None:
    blocks = [part.text for part in parts_of(Example("f:1", text=DOCUMENT))]
    assert "".join(blocks) == DOCUMENT
    for whole in (
        "module a(input x);\n\n  // endmodule\n  wire y;\n\nendmodule : a\n",
        "module b; endmodule ",
        "module d(\n\n); endmodule\n",
    ):
        assert sum(whole in block for block in blocks) == 1
    assert len(blocks) == 5


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(30, 90))
def test_no_window_holds_half_a_module(sizes: list[int], room: int) -> None:
    modules = [f"module m{i};\n" + "\n".join("wire;" for _ in range(n)) + "\nendmodule\n" for i, n in enumerate(sizes)]
    found = list(windows(Example("f:1", text="".join(modules)), room, lambda one: len(one.text), False))
    assert "".join(one.text for one in found) == "".join(one for one in modules if len(one) <= room)
    assert all(len(one.text) <= room and one.text.count("module m") == one.text.count("endmodule") for one in found)


def module(i: int, wires: int) -> str:
    return f"module m{i};\n" + "".join(f"  wire w{i}_{n};\n" for n in range(wires)) + "endmodule\n"


def test_the_stage_cuts_documents(rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path) -> None:
    text = "".join(module(i, 6) for i in range(6)) + module(7, 90)
    path = rows_file([{"text": text}, {"text": module(8, 90)}, {"text": module(9, 1)}])
    figures = prepare(path, form="text", max_length=128, overflow="window", packing="none", validation=0.3, seed=2)
    tokenizer = load_tokenizer(tokenizer_folder)
    sides = [
        [str(tokenizer.decode(row.ids.tolist())) for row in read_rows(tmp_path / "out" / side)]
        for side in ("train", "validation")
    ]
    assert sides[0]
    assert [sum(f"module m{i};" in text for text in sides[0] + sides[1]) for i in (*range(6), 7, 8, 9)] == [1] * 6 + [
        0,
        0,
        1,
    ]
    assert all(text.startswith("<bos>") and text.endswith("endmodule\n<eos>") for text in sides[0] + sides[1])
    of_first = [any(f"module m{i};" in text for text in side for i in range(6)) for side in sides]
    assert sum(of_first) == 1
    assert figures["windowed"] == {"rows": 1, "windows": figures["kept"] - 1, "left_out": 1} and figures["kept"] > 2
    assert figures["dropped"] == {"too long": 1}
    with pytest.raises(UserError, match="drop or window"):
        prepare(path, form="text", max_length=128, overflow="error")


def test_the_stage_cuts_conversations(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    said = [(role, f"{role} {i} " + "word " * 12) for i in range(9) for role in ("user", "assistant")]
    path = rows_file([{"messages": [{"role": role, "content": text} for role, text in said]}])
    for train_on in ("all_assistant_turns", "last_turn"):
        settings_ = {"max_length": 160, "overflow": "window", "packing": "none", "train_on": train_on}
        prepare(path, name=train_on, form="messages", **settings_)
        tokenizer = load_tokenizer(tokenizer_folder)
        rows = list(read_rows(tmp_path / train_on / "train"))
        learnt = "".join(str(tokenizer.decode(row.ids[row.mask].tolist())) for row in rows)
        wanted = range(9) if train_on == "all_assistant_turns" else [8]
        assert [i for i in range(9) if f"assistant {i} " in learnt] == list(wanted)
        assert learnt.count("<turn|>") == len(wanted) and all(len(row.ids) <= 160 for row in rows)
        assert len(rows) > 1 if train_on == "all_assistant_turns" else len(rows) == 1


def test_a_part_that_the_template_refuses_is_the_rows_fault(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    refuses = (
        "{% if messages[0].content == 'q1' %}{{ raise_exception('no') }}{% endif %}"
        + (Path(tokenizer_folder) / "chat_template.jinja").read_text()
    )
    place = model(tmp_path / "model", tokenizer_folder, refuses)
    turns = [
        {"role": role, "content": text} for i in range(2) for role, text in (("user", f"q{i}"), ("assistant", "a"))
    ]
    long = {"messages": [turns[0], {"role": "assistant", "content": "word " * 90}, *turns[2:]]}
    path = rows_file([{"messages": turns}, long])
    settings_: dict[str, Any] = {"form": "messages", "model": place, "max_length": 64, "overflow": "window"}
    with pytest.raises(UserError, match="refuses the conversation: no") as caught:
        prepare(path, **settings_)
    assert caught.value.where == f"{path}:2"
    figures = prepare(path, **settings_, bad_rows="drop")
    assert figures["kept"] == 1 and figures["dropped"] == {"refused by the template": 1}


def test_every_window_has_the_system_turn_that_is_folded(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in Path(tokenizer_folder).glob("token*"):
        (model / file.name).write_bytes(file.read_bytes())
    drops = "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }};{% endfor %}"
    (model / "chat_template.jinja").write_text(drops + "{% if add_generation_prompt %}[assistant]{% endif %}")
    said = [("system", "the rules")]
    said += [(role, f"{role} {i} " + "word " * 12) for i in range(6) for role in ("user", "assistant")]
    path = rows_file([{"messages": [{"role": role, "content": text} for role, text in said]}])
    settings_ = {"max_length": 160, "overflow": "window", "packing": "none", "system": "fold"}
    prepare(path, form="messages", model=str(model), **settings_)
    tokenizer = load_tokenizer(tokenizer_folder)
    texts = [str(tokenizer.decode(row.ids.tolist())) for row in read_rows(tmp_path / "out" / "train")]
    assert len(texts) > 1 and all(text.startswith("[user]the rules\n\nuser ") for text in texts)
    assert all(len(row.ids) <= 160 for row in read_rows(tmp_path / "out" / "train"))
