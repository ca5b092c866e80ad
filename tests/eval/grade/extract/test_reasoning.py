"""Reasoning: every family's marks, closed, stray, nested, left open, spoken of; W is the draft, M the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.grade.extract import extract

M = "module TopModule (input a, output b);\n  assign b = ~a;\nendmodule\n"
W = "module TopModule (input a, output b);\n  assign b = a;\nendmodule\n"
FAMILIES = {
    "DeepSeek, Qwen, GLM, Kimi K2": ("<think>\n", "\n</think>\n"),
    "capitals": ("<THINK>", "</THINK>"),
    "thinking": ("<thinking>", "</thinking>"),
    "Gemma through Gemini": ("<thought>\n", "</thought>\n"),
    "reasoning": ("<reasoning>\n", "\n</reasoning>\n"),
    "Seed-OSS": ("<seed:think>", "</seed:think>"),
    "MiniMax": ("<mm:think>", "</mm:think>"),
    "Magistral": ("[THINK]", "[/THINK]"),
    "Gemma 4": ("<|channel>thought\n", "<channel|>"),
    "Kimi-VL": ("◁think▷", "◁/think▷"),
    "Kimi K3": ("<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>"),
    "Command A": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "Apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "MedGemma": ("<unused94>thought\n", "<unused95>"),
    "gpt-oss": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "gpt-oss, with a constraint": (
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>text<|message|>",
    ),
    "gpt-oss, its tokens dropped": ("analysisWe invert. ", "assistantfinal"),
}
MARKS = pytest.mark.parametrize(("opening", "closing"), FAMILIES.values(), ids=FAMILIES)
SHAPES = st.sampled_from(["{}", "```verilog\n{}```\n", "So:\n```\n{}```\nDone.\n", "[BEGIN]\n{}[DONE]\n", "\n\n{}"])
THOUGHTS = st.sampled_from(
    [
        "",
        "hm",
        f"try\n{W}",
        f"try\n```verilog\n{W}```\nno",
        f"```verilog\n{W}",
        'the "a" input',
        "it's a/*b",
        f"[BEGIN]\n{W}[DONE]",
    ]
)


def _lines(code: str | None) -> list[str]:
    return [line.strip() for line in (code or "").splitlines() if line.strip()]


@MARKS
@given(thought=THOUGHTS, shape=SHAPES)
def test_a_thought_is_left_out(opening: str, closing: str, thought: str, shape: str) -> None:
    assert _lines(extract(f"{opening}{thought}{closing}{shape.format(M)}")) == _lines(M)


@MARKS
@given(thought=THOUGHTS)
def test_half_a_thought_is_no_answer(opening: str, closing: str, thought: str) -> None:
    assert extract(opening + thought) is None
    header = "module TopModule (\n  input a,\n  output b\n);\n"
    assert extract(f"{opening}{thought}\nassign b = a;\n", header) is None


@pytest.mark.parametrize("family", [name for name in FAMILIES if "gpt-oss" not in name])
@given(thought=THOUGHTS, shape=SHAPES)
def test_an_opening_in_the_prompt(family: str, thought: str, shape: str) -> None:
    """The template has opened the thought: the answer holds its end alone."""
    assert _lines(extract(f"{thought}{FAMILIES[family][1]}{shape.format(M)}")) == _lines(M)


@pytest.mark.parametrize("family", [name for name in FAMILIES if "gpt-oss" not in name])
@given(shape=SHAPES)
def test_a_stray_end_behind_the_answer(family: str, shape: str) -> None:
    closing = FAMILIES[family][1]
    assert _lines(extract(f"{shape.format(M)}{closing}")) == _lines(M)
    assert _lines(extract(f"{shape.format(M)}{closing}\nI hope this helps.")) == _lines(M)
    assert _lines(extract(f"<think>hm</think>{shape.format(M)}{closing}")) == _lines(M)


@pytest.mark.parametrize("quoted", ['$display("{}");', "// the {} of it", "/* {} */", "/*\n * {}\n */"])
@pytest.mark.parametrize("mark", ["<think>", "</think>", "[/THINK]", "<channel|>", "</reasoning>", "<|channel>thought"])
def test_a_mark_in_code_is_code(mark: str, quoted: str) -> None:
    code = M.replace("  assign", f"  {quoted.format(mark).replace('$', 'initial $')}\n  assign")
    for text in (code, f"```verilog\n{code}```", f"<think>\n{W}</think>\n```verilog\n{code}```"):
        assert _lines(extract(text)) == _lines(code)


def test_a_mark_that_a_thought_speaks_of() -> None:
    thought = f'I end with "</think>" and `</think>`.\n```\n{W}```\n// </think>\n'
    assert _lines(extract(f"<think>{thought}</think>\n```verilog\n{M}```")) == _lines(M)


def test_thoughts_within_thoughts_and_one_after_another() -> None:
    for text in (
        f"<think>\n<think>\n{W}</think>\n{M}",
        f"<think>a<think>{W}</think>{W}</think>\n{M}",
        f"<think>{W}</think>\n<think>{W}</think>\n{M}",
        f"{M}<think>did I\n",
        f"<think>\n\n</think>\n\n{M}",
        f"<think>{M}</think>\n",
        f"thought\nHere:\n```verilog\n{W}```\nDone.\n\n\n{M}",
        f"<answer>\n{M}</answer>",
        f"{M}<|im_end|>",
    ):
        assert _lines(extract(text)) == _lines(M), text


def test_an_answer_without_code_does_not_take_the_thoughts() -> None:
    assert extract(f"<think>\n```verilog\n{W}```\n</think>\nI cannot do it.") is None
    assert extract(f"<|channel|>analysis<|message|>{W}<|end|><|start|>assistant<|channel|>final<|message|>No.") is None


def test_an_index_named_think() -> None:
    code = M.replace("~a", "state[THINK]")
    assert _lines(extract(code)) == _lines(code)
