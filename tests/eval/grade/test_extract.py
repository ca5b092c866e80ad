"""Ugly outputs, each with what should be graded; M is a TopModule, H a helper, W a wrong TopModule."""

import pytest

from eval.grade.extract import extract

M = "module TopModule (input a, output b);\n  inv i (a, b);\nendmodule\n"
W = "module TopModule (input a, output b);\n  assign b = a;\nendmodule\n"
H = "module inv (input a, output b);\n  assign b = ~a;\nendmodule\n"
IFC = "module TopModule (\n  input a,\n  output b\n);\n"

UGLY = {
    "a fence": (f"Here:\n```verilog\n{M}```\nDone.", M),
    "systemverilog": (f"```systemverilog\n{M}```", M),
    "sv": (f"```sv\n{M}```", M),
    "no language": (f"```\n{M}```", M),
    "capitals and attributes": (f"```Verilog title=x\n{M}```", M),
    "tildes": (f"~~~verilog\n{M}~~~", M),
    "four ticks": (f"````verilog\n{M}````", M),
    "an indented fence": (f"  ```verilog\n{M}  ```", M),
    "windows line ends": (f"```verilog\n{M}```".replace("\n", "\r\n"), M),
    "an unterminated fence": (f"Sure.\n```verilog\n{M}", M),
    "no fence": (M, M),
    "no fence but prose": (f"The module is:\n\n{M}\nI hope this helps; a module drives its outputs.", M),
    "the last of two": (f"First try:\n```verilog\n{W}```\nBetter:\n```verilog\n{M}```", M),
    "a testbench after": (f"```verilog\n{M}```\nTest it:\n```verilog\nmodule tb; TopModule t(); endmodule\n```", M),
    "a usage after": (f"```verilog\n{M}```\nRun:\n```bash\niverilog top.v\n```", M),
    "json after": (f'```verilog\n{M}```\n```json\n{{"module": "TopModule"}}\n```', M),
    "a helper within": (f"```verilog\n{H}{M}```", H + M),
    "a helper in its own fence": (f"```verilog\n{H}```\nand\n```verilog\n{M}```", H + M),
    "reasoning before": (f"<think>\n```verilog\n{W}```\n</think>\n```verilog\n{M}```", M),
    "reasoning without its start": (f"first I try\n```verilog\n{W}```\n</think>\n\n```verilog\n{M}```", M),
    "reasoning in capitals": (f"<THINK>{W}</THINK>{M}", M),
    "nothing after the reasoning": (f"<think>so\n```verilog\n{M}```\n</think>\n", M),
    "reasoning that never ends": (f"<think>\nI write\n```verilog\n{M}```", M),
    "answer tags": (f"<think>hm</think>\n<answer>\n```verilog\n{M}```\n</answer>", M),
    "a comment with a fence": (f"```verilog\n// ```not a fence``` here\n{M}```", f"// ```not a fence``` here\n{M}"),
    "a name in a comment only": ("```verilog\n// module TopModule is missing\nmodule top; endmodule\n```", None),
    "another name": ("```verilog\nmodule top_module(input a); endmodule\n```", None),
    "prose": ("I cannot help with that.", None),
    "nothing": ("", None),
    "fences of another language": ("```python\nprint('module')\n```", None),
}


@pytest.mark.parametrize("name", UGLY)
def test_extraction(name: str) -> None:
    completion, wanted = UGLY[name]
    found = extract(completion)
    assert (found or "").strip() == (wanted or "").strip() and (found is None) == (wanted is None)


@pytest.mark.parametrize(
    "completion", ["  assign b = ~a;\nendmodule", "  assign b = ~a;\n", "```verilog\n  assign b = ~a;\nendmodule\n```"]
)
def test_a_body_continues_the_given_header(completion: str) -> None:
    found = extract(completion, IFC)
    assert found is not None and found.split() == (IFC + "  assign b = ~a;\nendmodule").split()


def test_a_whole_module_is_not_joined_to_the_header() -> None:
    assert extract(f"```verilog\n{M}```", IFC) == M
