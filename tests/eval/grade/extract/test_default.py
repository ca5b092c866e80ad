# ruff: noqa: E501
"""Ugly outputs, each with what should be graded; M is a TopModule, H a helper, W a wrong TopModule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.grade.extract import extract

M = "module TopModule (input a, output b);\n  inv i (a, b);\nendmodule\n"
W = "module TopModule (input a, output b);\n  assign b = a;\nendmodule\n"
H = "module inv (input a, output b);\n  assign b = ~a;\nendmodule\n"
S = "module TopModule (input a, output b);\n  reg [2:0] state;\n  localparam DONE = 1;\n  assign b = state[DONE];\nendmodule\n"
T = 'module tb; //\n  TopModule t ();\n  initial begin $dumpfile("x.vcd"); $finish; end\nendmodule\n'
K = "module TopModule (input a, output reg b);\n  // ...\nendmodule\n"
P = "package p;\n  typedef logic t;\nendpackage\n"
U = "module TopModule (input a, output p::t b);\n  assign b = ~a;\nendmodule\n"
E = "\\TopModule "
F = "module TopModule (input a, output b);\n  function f(input x); f = ~x; endfunction\n  assign b = f(a);\nendmodule\n"
N = "module TopModule (input nib a, output nib b);\n  assign b = ~a;\nendmodule\n"
BODY = "  assign b = ~a;\n"
NEWLINE = "\n"
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
    "prose in a fence that never closes": (f"```verilog\n{M}The module TopModule above\ninverts `a`.", M),
    "leavings in a fence that closes on a line of code": (f"```verilog\n{M}{BODY}endmodule\nendmodule```", M),
    "a fence that only speaks of the module before it": (f"{M}```text\nmodule TopModule is simple.\n", M),
    "a skeleton in a fence beside the unfenced module": (f"```verilog\n{K}```\nis filled in:\n{M}", M),
    "marks around a header alone": (f"[BEGIN]{IFC.strip()}[DONE]\n```verilog\n{M}```", M),
    "marks around two, the last a skeleton": (f"[BEGIN]\n{M}[DONE]\n[BEGIN]\n{K}[DONE]", M),
    "nothing that is whole": (f"```verilog\n{IFC}```\nor {IFC}", IFC),
    "a comment within the header of an unfenced module": (
        f"Inverts:\n{M.replace('module Top', 'module /* the */ // one' + NEWLINE + 'Top')}It inverts.",
        M.replace("module Top", "module /* the */ // one\nTop"),
    ),
    "an unterminated fence": (f"Sure.\n```verilog\n{M}", M),
    "no fence": (M, M),
    "no fence but prose": (f"The module is:\n\n{M}\nI hope this helps; a module drives its outputs.", M),
    "the last of two": (f"First try:\n```verilog\n{W}```\nBetter:\n```verilog\n{M}```", M),
    "a testbench after": (f"```verilog\n{M}```\nTest it:\n```verilog\nmodule tb; TopModule t(); endmodule\n```", M),
    "a usage after": (f"```verilog\n{M}```\nRun:\n```bash\niverilog top.v\n```", M),
    "json after": (f'```verilog\n{M}```\n```json\n{{"module": "TopModule"}}\n```', M),
    "a helper within": (f"```verilog\n{H}{M}```", H + M),
    "a macro's use before an unfenced module": (
        f"`define TYPES(x) typedef logic x;\n`TYPES(t)\n`is` all.\n{M}",
        f"`define TYPES(x) typedef logic x;\n`TYPES(t)\n{M}",
    ),
    "prose that begins as a block does": (
        f"function of the (old) reset is\nas follows.\n{F}Done.",
        F,
    ),
    "a type in its own fence": (
        f"```v\ntypedef logic [3:0] nib;\n```\nand\n```v\n{N}```",
        f"typedef logic [3:0] nib;\n{N}",
    ),
    "a helper in its own fence": (f"```verilog\n{H}```\nand\n```verilog\n{M}```", H + M),
    "reasoning before": (f"<think>\n```verilog\n{W}```\n</think>\n```verilog\n{M}```", M),
    "reasoning without its start": (f"first I try\n```verilog\n{W}```\n</think>\n\n```verilog\n{M}```", M),
    "reasoning in capitals": (f"<THINK>{W}</THINK>{M}", M),
    "nothing after the reasoning": (f"<think>so\n```verilog\n{M}```\n</think>\n", M),
    "reasoning that never ends": (f"<think>\nI write\n```verilog\n{M}```", None),
    "answer tags": (f"<think>hm</think>\n<answer>\n```verilog\n{M}```\n</answer>", M),
    "a header's prologue between the marks": (
        f"[BEGIN]\n`define N 4\ntypedef logic t;\n{M}[DONE]",
        f"`define N 4\ntypedef logic t;\n{M}",
    ),
    "marks that a state's name repeats": (f"[BEGIN]\n{S}[DONE]\n", S),
    "the end mark on the last line": (f"[BEGIN] {M.rstrip()}[DONE]", M),
    "marks without their end": (f"[BEGIN]\n{M}", M),
    "its testbench in the same fence": (f"```verilog\n{M}{T}```", M),
    "its testbench before it": (f"```verilog\n`timescale 1ns/1ps\n{T}\n{M}```", f"`timescale 1ns/1ps\n\n{M}"),
    "what only its testbench uses": (
        f"```verilog\n{M}{H.replace('inv', 'clock')}{T.replace('//', 'clock c (x, y); //')}```",
        M,
    ),
    "a testbench that defines a macro": (
        f"```verilog\n{T.replace('//', NEWLINE + '`define N 1' + NEWLINE)}{M}```",
        f"`define N 1\n{M}",
    ),
    "pasted names keep all": (f"```verilog\n`define C(x) in``x\n{H}{M}```", f"`define C(x) in``x\n{H}{M}"),
    "a skeleton after": (f"```verilog\n{M}```\nIn short:\n```verilog\n{K}```", M),
    "an empty block after": (
        f"```verilog\n{M}```\n```verilog\n{K.replace('// ...', 'always @(*) begin // here' + NEWLINE + 'end')}```",
        M,
    ),
    "a second try that is cut off": (f"```verilog\n{M}```\nBetter:\n```verilog\n{W[:60]}", M),
    "a skeleton in the same fence": (f"```verilog\n{K}{M}```", M),
    "a package in a fence of its own": (f"```sv\n{P}```\nand\n```sv\n{U}```", P + U),
    "a package after": (f"```sv\n{U}```\nwith\n```sv\n{P}```", P + U),
    "a macro in a fence of its own": (
        f"```verilog\n`define W 8\n```\n```verilog\n{M.replace('inv', '`W inv')}```",
        f"`define W 8\n{M.replace('inv', '`W inv')}",
    ),
    "helpers of helpers, in reverse": (
        f"```v\n{M}```\n```v\n{H.replace('~a;', '~a; not2 n();')}```\n```v\n{H.replace('inv', 'not2')}```",
        H.replace("~a;", "~a; not2 n();") + H.replace("inv", "not2") + M,
    ),
    "a text fence": (f"```text\n{W}```\n```text\n{M}```", M),
    "titles and names": (f'```systemverilog title="top.sv" {{1-3}}\n{M}```', M),
    "two words": (f"```Verilog HDL\n{M}```", M),
    "Pandoc's braces": (f"```{{.verilog .numberLines}}\n{M}```", M),
    "a fence in a list": (f"1. So:\n   ```verilog\n   {M}   ```", M),
    "a fence that begins a list": (f"- ```verilog\n{M}```", M),
    "a quoted fence": ("> ```verilog\n" + "".join(f"> {line}\n" for line in M.splitlines()) + "> ```", M),
    "the end on the code's line": (f"```verilog\n{M.rstrip()}```\n\nIt inverts.", M),
    "the end on a named line": (f"```verilog\n{M.rstrip()} : TopModule ```\n", M.rstrip() + " : TopModule"),
    "the start on a sentence's line": (f"The code: ```verilog\n{M}```", M),
    "the code on the start's line": (f"```verilog {M}```", M),
    "all on one line": ("```verilog module TopModule; x y(); endmodule ```", "module TopModule; x y(); endmodule"),
    "a fence that was not closed before the next": (f"```verilog\n{W}Better:\n```verilog\n{M}```", M),
    "a fence in a fence": (f"````markdown\n```verilog\n{M}```\n````", M),
    "a byte-order mark": (f"\ufeff```verilog\n\ufeff{M}```", M),
    "line ends of an old Mac": (f"```verilog\n{M}```".replace("\n", "\r"), M),
    "half a surrogate pair": (f"```verilog\n// \ud83d\n{M}```", f"// \ufffd\n{M}"),
    "prose that begins with module": (f"This is the\nmodule you want, TopModule:\n\n{M}", M),
    "prose that looks like a header": (f"The\nmodule TopModule (as you asked) follows.\n{M}", M),
    "prose that opens a comment": (f'Use a/*b and "quotes.\n{M}', M),
    "prose between a helper and the module": (f"First\n{H}and then\n{M}done.", H + M),
    "a prologue without a fence": (
        f"Here:\n`timescale 1ns/1ps\n`define N 4\ntypedef enum logic {{\n  A, B\n}} t;\n{M}",
        f"`timescale 1ns/1ps\n`define N 4\ntypedef enum logic {{\n  A, B\n}} t;\n{M}",
    ),
    "a primitive after, without a fence": (
        f"{M}primitive inv (b, a); output b; input a; table 0 : 1; 1 : 0; endtable endprimitive\nIt inverts.",
        f"{M}primitive inv (b, a); output b; input a; table 0 : 1; 1 : 0; endtable endprimitive",
    ),
    "a waveform in a fence, the code outside": (f"{M}```\na 0 1\nb 1 0\n```", M),
    "an escaped name": (f"```v\n{M.replace('TopModule', E)}```", M.replace("TopModule", E)),
    "a name by macro": (
        f"```v\n`define NAME TopModule\n{M.replace('TopModule', '`NAME')}```",
        f"`define NAME TopModule\n{M.replace('TopModule', '`NAME')}",
    ),
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
    assert _lines(found) == _lines(wanted) and (found is None) == (wanted is None)


def _lines(code: str | None) -> list[str]:
    """What a compiler would tell apart."""
    return [line.strip() for line in (code or "").splitlines() if line.strip()]


@pytest.mark.parametrize(
    "completion", ["  assign b = ~a;\nendmodule", "  assign b = ~a;\n", "```verilog\n  assign b = ~a;\nendmodule\n```"]
)
def test_a_body_continues_the_given_header(completion: str) -> None:
    found = extract(completion, IFC)
    assert found is not None and found.split() == (IFC + "  assign b = ~a;\nendmodule").split()


RUN_ON = {
    "another module": f"{BODY}endmodule\n\n{T}",
    "the next problem": f"{BODY}endmodule\n\nNow another.\n\n{W}",
    "a fence's end": f"{BODY}endmodule\n```\n\nExplanation: it inverts.\n",
    "an explanation with the whole in a fence": f"{BODY}endmodule\n\nThat is:\n```verilog\n{W}```",
    "the end on the fence's line": f"```verilog\n{BODY}endmodule```\nInverts.",
    "a fence after a sentence": f"Sure:\n```verilog\n{BODY}endmodule\n```\nFor example\n```verilog\nassign b = a;\n```",
    "marks behind it": f"{BODY}endmodule\n\n[BEGIN]\n{W}[DONE]\n",
    "a fence that was begun before": f"{BODY}endmodule\n```verilog\n{W}```",
}


@pytest.mark.parametrize("name", RUN_ON)
def test_a_body_ends_with_its_module(name: str) -> None:
    assert _lines(extract(RUN_ON[name], IFC)) == _lines(f"{IFC}{BODY}endmodule")


def test_a_body_keeps_the_helpers_that_it_names() -> None:
    found = extract(f"  inv i (a, b);\nendmodule\n\n{H}\nand a test:\n{T}", IFC)
    assert _lines(found) == _lines(f"{IFC}  inv i (a, b);\nendmodule\n{H}")


def test_every_top_module_of_a_conditional_text_stays() -> None:
    code = f"`ifdef FAST\n{W}`else\n{M}`endif\n"
    assert _lines(extract(f"```v\n{H}{code}```")) == _lines(H + code)


CODES = st.sampled_from([M, W, H + M, P + U, S, f"`define N 1\n{M}", M.replace("\n", "\n\n")])
SENTENCES = st.sampled_from(
    [
        "",
        "Sure!\n",
        "Here is it, a `wire` and all:\n",
        "Don't use a/*b.\n\n",
        "1. First\n",
        'Say "x.\n',
        "module is ready:\n",
    ]
)
LABELS = st.sampled_from(
    [
        "",
        "verilog",
        "SystemVerilog",
        "sv",
        "text",
        "hdl",
        "Verilog HDL",
        'v title="a.v"',
        "{.verilog}",
        "verilog:top.sv",
        "plaintext",
    ]
)
TICKS = st.sampled_from(["```", "````", "~~~", "`````"])


@given(CODES, SENTENCES, SENTENCES, LABELS, TICKS, st.sampled_from(["", "  ", "\t"]), st.booleans(), st.booleans())
def test_any_fence_gives_its_code(
    code: str, before: str, after: str, label: str, ticks: str, indent: str, late: bool, crlf: bool
) -> None:
    end = f"{code.rstrip()}{ticks}" if late else f"{code}{indent}{ticks}"
    text = f"{before}{indent}{ticks}{label}\n{end}\n{after}"
    assert _lines(extract(text.replace("\n", "\r\n") if crlf else text)) == _lines(code)


@given(CODES, SENTENCES, SENTENCES, st.sampled_from(["", T]), st.sampled_from(["", T]))
def test_any_prose_gives_its_code(code: str, before: str, after: str, early: str, late: str) -> None:
    assert _lines(extract(before + early + code + late + after)) == _lines(code)


@given(st.text(), st.sampled_from(["", IFC]))
def test_any_text_is_read(text: str, interface: str) -> None:
    for found in (extract(text, interface), extract(text, interface, "official")):
        assert found is None or found.encode()


@given(
    st.lists(
        st.sampled_from(
            ["<think>", "</think>", "```", "```v\n", "[BEGIN]", "[DONE]", "/*", "*/", '"', "\n", M, W, K, H, "`"]
        )
    )
)
def test_any_mixture_is_read(parts: list[str]) -> None:
    found = extract("".join(parts))
    assert found is None or "TopModule" in found


def test_a_whole_module_is_not_joined_to_the_header() -> None:
    assert extract(f"```verilog\n{M}```", IFC) == M
