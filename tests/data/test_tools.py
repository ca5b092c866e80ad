"""Tools, calls and replies go through the template's own words: a call is supervised, a reply is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from models.text.packed_rows import read_rows
from models.text.prompt import load_tokenizer
from tests.data.test_bad_input import model

RowsFile = Callable[..., str]
Prepare = Callable[..., dict[str, Any]]
CALLS = """\
{{- bos_token -}}{%- if tools -%}<|turn>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<turn|>
{% endif -%}
{%- for m in messages -%}
{{- '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (m.name + ': ' if m.name else '') -}}
{%- if m.reasoning_content and not loop.index0 < messages | length - 1 -%}[{{ m.reasoning_content }}]{%- endif -%}
{{- m.content -}}
{%- for call in m.tool_calls or [] -%}
{{- '<call>' + call.function.name + ' ' + call.function.arguments | tojson + '</call>' -}}
{%- endfor -%}{{- '<turn|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\n' -}}{%- endif -%}"""
TOOL = {"type": "function", "function": {"name": "iverilog", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "iverilog", "arguments": '{"file": "inv.v"}'}}
SAID: list[dict[str, Any]] = [
    {"role": "user", "content": "Write an inverter."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "ok, <turn|> no errors"},
    {"role": "assistant", "content": "Done."},
]


@pytest.fixture
def caller(tmp_path: Path, tokenizer_folder: str) -> str:
    return model(tmp_path / "caller", tokenizer_folder, CALLS)


def shown(place: str, folder: Path) -> list[tuple[str, list[str]]]:
    """Text and supervised stretches of each row, in the order they are stored."""
    tokenizer, found = load_tokenizer(place), []
    for row in read_rows(folder):
        stretches, ids = [], []
        for i, on in zip([*row.ids.tolist(), -1], [*row.mask.tolist(), False], strict=True):
            if on:
                ids.append(i)
            elif ids:
                stretches.append(str(tokenizer.decode(ids)))
                ids = []
        found.append((str(tokenizer.decode(row.ids.tolist())), stretches))
    return found


ASKED = f"<bos><|turn>system\n{json.dumps(TOOL)}\n<turn|>\n<|turn>user\nWrite an inverter.<turn|>\n"
CALLED = '<call>iverilog {"file": "inv.v"}</call><turn|>'
WHOLE = f"{ASKED}<|turn>model\n{CALLED}\n<|turn>tool\nok, <turn|> no errors<turn|>\n<|turn>model\nDone.<turn|>\n"
SPELLINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("messages", {"tools": [TOOL], "messages": SAID}),
    "tools as text": ("messages", {"tools": json.dumps([TOOL]), "messages": SAID}),
    "arguments as an object": (
        "messages",
        {
            "tools": [TOOL],
            "messages": [
                SAID[0],
                {"role": "assistant", "tool_calls": [{"name": "iverilog", "arguments": {"file": "inv.v"}}]},
                *SAID[2:],
            ],
        },
    ),
    "function_call": (
        "messages",
        {
            "tools": [TOOL],
            "messages": [
                SAID[0],
                {"role": "assistant", "content": "", "function_call": CALL["function"]},
                {"role": "function", "content": SAID[2]["content"]},
                SAID[3],
            ],
        },
    ),
    "sharegpt": (
        "sharegpt",
        {
            "tools": json.dumps([TOOL]),
            "conversations": [
                {"from": "human", "value": "Write an inverter."},
                {"from": "function_call", "value": json.dumps({"name": "iverilog", "arguments": {"file": "inv.v"}})},
                {"from": "observation", "value": SAID[2]["content"]},
                {"from": "gpt", "value": "Done."},
            ],
        },
    ),
    "trl": ("prompt-completion", {"tools": [TOOL], "prompt": SAID[:1], "completion": SAID[1:]}),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_call_is_learnt_and_its_reply_is_not(
    rows_file: RowsFile, prepare: Prepare, caller: str, tmp_path: Path, spelling: str
) -> None:
    form, row = SPELLINGS[spelling]
    figures = prepare(rows_file([row]), form=form, model=caller)
    assert figures["unused"] == {} and figures["kept"] == 1
    assert shown(caller, tmp_path / "out" / "train") == [(WHOLE, [CALLED, "Done.<turn|>"])]
    ((probe,),) = [figures["probes"]]
    assert probe["tools"] == [TOOL] and probe["messages"][-1]["role"] == "tool"
    turn_end = load_tokenizer(caller).convert_tokens_to_ids("<turn|>")
    (row_,) = read_rows(tmp_path / "out" / "train")
    assert row_.ids.tolist().count(turn_end) == 5  # system, user, call, reply and answer; what the reply spells is text


def test_what_the_template_cannot_show_is_an_error(rows_file: RowsFile, prepare: Prepare) -> None:
    calls, tools = {"messages": SAID}, {"messages": [SAID[0], SAID[3]], "tools": [TOOL]}
    for row, name in ((calls, "tool_calls"), (tools, "tools")):
        path = rows_file([tools | {"tools": []}, row])
        with pytest.raises(UserError, match=f"{name}' would change what is learnt") as caught:
            prepare(path, form="messages")
        assert caught.value.where == f"{path}:2" and f"data.unused: [{name}]" in caught.value.fix
        dropped = prepare(path, form="messages", bad_rows="drop")
        assert dropped["dropped"] == {"refused by the template": 1} and dropped["kept"] == 1
    figures = prepare(rows_file([tools, {"messages": [SAID[0], SAID[3]]}]), form="messages", unused=["tools"])
    assert figures["unused"] == {"tools": 1} and figures["kept"] == 2
    figures = prepare(rows_file([calls, tools]), form="messages", unused="ignore")
    assert figures["dropped"] == {"empty answer": 1} and figures["kept"] == 1  # a turn that was nothing but its call


LOSSY = {
    "words beside a call": ("m.content -", "('' if m.tool_calls else m.content) -", "the whole of an answer"),
    "a second call": ("m.tool_calls or []", "(m.tool_calls or [])[:1]", "tool_calls' would change"),
    "arguments": ("call.function.arguments | tojson", "'{}'", "tool_calls' would change"),
    "half of an answer": ("m.content -", "m.content.split(' and ')[-1] -", "the whole of an answer"),
    "questions": ("m.content -", "('' if m.role == 'user' else m.content) -", "drops the turn of the user"),
    "an answer that is context": (
        "m.content -",
        "('' if loop.index0 == 1 else m.content) -",
        "of the assistant",
    ),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_what_the_template_loses_of_a_row_is_an_error(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path, kind: str
) -> None:
    old, new, message = LOSSY[kind]
    messages = [
        {"role": "user", "content": "Write and compile an inverter."},
        {"role": "assistant", "content": "Not yet.", "train": False},
        {"role": "user", "content": "Do it."},
        {"role": "assistant", "content": "I do.", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "ok"},
        {"role": "assistant", "content": "Written and done."},
    ]
    path = rows_file([{"messages": messages}])
    assert prepare(path, form="messages", model=model(tmp_path / "whole", tokenizer_folder, CALLS))["kept"] == 1
    lossy = model(tmp_path / "lossy", tokenizer_folder, CALLS.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        prepare(path, form="messages", model=lossy)
    assert caught.value.where == f"{path}:1" and caught.value.fix


def test_a_reply_without_keys_that_the_template_drops_is_an_error(
    rows_file: RowsFile, prepare: Prepare, tokenizer_folder: str, tmp_path: Path
) -> None:
    deaf = model(
        tmp_path / "deaf", tokenizer_folder, CALLS.replace("m.content -", "('' if m.role == 'tool' else m.content) -")
    )
    turns = [SAID[0], {"role": "assistant", "content": "Try."}, {"role": "tool", "content": "ok"}, SAID[3]]
    with pytest.raises(UserError, match="content of a tool"):
        prepare(rows_file([{"messages": turns}]), form="messages", model=deaf)


@pytest.mark.parametrize(
    "call", ["not JSON", 3, [{}], [{"function": {"arguments": {}}}], ["x"], [{"function": {"name": 3}}]]
)
def test_a_call_that_is_none_is_a_bad_row(rows_file: RowsFile, prepare: Prepare, caller: str, call: Any) -> None:
    messages = [SAID[0], {"role": "assistant", "content": "x", "tool_calls": call}]
    with pytest.raises(UserError, match=r"must be a list of calls|a call has no name"):
        prepare(rows_file([{"messages": messages}]), form="messages", model=caller)


def test_thoughts_that_only_the_last_turn_shows_make_a_row_of_each_answer(
    rows_file: RowsFile, prepare: Prepare, caller: str, tmp_path: Path
) -> None:
    def answer(content: str) -> dict[str, str]:
        return {"role": "assistant", "content": content, "reasoning_content": f"why {content}"}

    ask = {"role": "user", "content": "?"}
    path = rows_file([{"messages": [ask, answer("a"), ask, answer("b")]}])
    figures = prepare(path, form="messages", model=caller, strip_reasoning=False, packing="none")
    assert figures["each_answer"] == {"rows": 1, "parts": 2} and figures["rows"] == 1 and figures["kept"] == 2
    one = "<bos><|turn>user\n?<turn|>\n<|turn>model\n"
    both = f"{one}a<turn|>\n<|turn>user\n?<turn|>\n<|turn>model\n"
    assert shown(caller, tmp_path / "out" / "train") == [
        (f"{one}[why a]a<turn|>\n", ["[why a]a<turn|>"]),
        (f"{both}[why b]b<turn|>\n", ["[why b]b<turn|>"]),
    ]
    figures = prepare(path, form="messages", model=caller)
    assert figures["unused"] == {"messages[].reasoning_content": 2} and "each_answer" not in figures


def test_a_call_and_its_reply_stay_in_one_window(
    rows_file: RowsFile, prepare: Prepare, caller: str, tmp_path: Path
) -> None:
    path = rows_file([{"messages": [*SAID, *SAID]}])
    figures = prepare(path, form="messages", model=caller, max_length=128, overflow="window", packing="none")
    assert figures["windowed"] == {"rows": 1, "windows": 2, "left_out": 0}
    found = shown(caller, tmp_path / "out" / "train")
    assert [stretches for _, stretches in found] == [[CALLED, "Done.<turn|>"]] * 2
