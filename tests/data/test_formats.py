"""What of a row is kept: the answer, without the reasoning."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.example import Dropped, Example
from data.formats.reading import Reading
from data.formats.reasoning import final_answer
from data.formats.rows import example_of


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>\na\n</think>\n<answer>\n```verilog\nx\n```\n</answer>", "```verilog\nx\n```"),
        ("<think>maybe <answer>no</answer>?</think><answer> yes </answer>", "yes"),
        ("<think>a</think>\n\nplain", "plain"),
        ("plain ```v\nx\n```", "plain ```v\nx\n```"),
        ("<answer>a </answer> b</answer> tail", "a </answer> b"),
        ("<think>a</think><answer>\n</answer>", ""),
        ("", ""),
    ],
)
def test_final_answer(response: str, answer: str) -> None:
    assert final_answer(response) == answer


@pytest.mark.parametrize("response", ["<think>never ends", "<think>a</think><answer>```verilog\nmodule"])
def test_a_response_cut_off_is_dropped(response: str) -> None:
    with pytest.raises(Dropped, match="cut off"):
        final_answer(response)


@given(st.text(), st.text().filter(lambda t: "</think>" not in t and "answer>" not in t))
def test_the_answer_comes_back_whatever_the_reasoning(thought: str, answer: str) -> None:
    assert final_answer(f"<think>{thought}</think>\n<answer>\n{answer}\n</answer>") == answer.strip()


@pytest.mark.parametrize(
    ("form", "row", "messages"),
    [
        (
            "codev-r1",
            {"prompt": "p", "response": "<think>t</think><answer>r</answer>"},
            [("user", "p"), ("assistant", "r")],
        ),
        ("prompt-completion", {"prompt": "p\r\nq", "completion": "c"}, [("user", "p\nq"), ("assistant", "c")]),
        (
            "messages",
            {"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "<think>t</think>a"}]},
            [("system", "s"), ("assistant", "a")],
        ),
    ],
)
def test_rows_become_conversations(form: str, row: dict[str, Any], messages: list[tuple[str, str]]) -> None:
    example = example_of(row, "f:1", form, Reading())
    assert [(m["role"], m["content"]) for m in example.messages] == messages


def test_reasoning_stays_where_the_recipe_keeps_it() -> None:
    row = {"prompt": "p", "response": "<think>t</think><answer>r</answer>"}
    assert example_of(row, "f:1", "codev-r1", Reading(strip_reasoning=False)).messages[1]["content"] == row["response"]


def test_a_document_has_no_messages() -> None:
    assert example_of({"text": "module m;\nendmodule\n"}, "f:1", "text", Reading()) == Example(
        "f:1", (), "module m;\nendmodule\n"
    )
    with pytest.raises(Dropped, match="empty"):
        example_of({"text": " \n"}, "f:1", "text", Reading())


def test_the_digest_is_of_the_content_alone() -> None:
    def digest(*messages: tuple[str, str], where: str = "a:1") -> bytes:
        return Example(where, tuple({"role": r, "content": c} for r, c in messages)).digest

    assert digest(("user", "ab")) == digest(("user", "ab"), where="b:2")
    assert digest(("user", "ab"), ("assistant", "c")) != digest(("user", "a"), ("assistant", "bc"))
