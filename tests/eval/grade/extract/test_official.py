"""The official line rule: against the rule told once more as a walk over lines, and against the official script itself.

The script is run where a checkout of NVlabs/verilog-eval is at hand ($VERILOG_EVAL, else ../shared/verilog-eval): with
its model left unasked, as it offers itself ("manual"), and three names of its imports standing in for LangChain.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.grader.agreement import official as analyzed
from benchmarks.grader.agreement import run_bare
from common.benchmark.problems import Problem
from eval.grade import simulate
from eval.grade.extract import Rule, extract, official
from eval.grade.simulate import Simulator
from eval.grade.worker import admitted
from eval.sandbox.run import Limits, find_confinement
from tests.eval.conftest import TESTBENCH
from tests.eval.grade.extract.answers import HEADER, answers

REPO = Path(__file__).resolve().parents[4]
CHECKOUT = Path(os.environ.get("VERILOG_EVAL", REPO.parent / "shared" / "verilog-eval"))
SCRIPT = CHECKOUT / "scripts" / "sv-generate"
REMARK = "// VERILOG-EVAL:"
STUBS = {
    "langchain_nvidia_ai_endpoints": "ChatNVIDIA = None",
    "langchain_openai": "ChatOpenAI = None",
    "langchain/__init__": "",
    "langchain/schema": "SystemMessage = HumanMessage = str",
    "langchain/callbacks": "get_openai_callback = None",
}
MANY = """
import contextlib, io, os, pathlib, runpy, sys
script, task, folder, count = sys.argv[1:]
for i in range(int(count)):
    sys.argv = [script, "--model", "manual-deepseek-coder-33b", "--task", task]
    sys.argv += ["--output", f"{folder}/{i}.sv", f"{folder}/P_prompt.txt"]
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(script, run_name="__main__")
"""


def scripted(texts: list[str], task: str, folder: Path) -> list[tuple[str, str]]:
    """Of each answer: itself as the script reads it (line ends already \\n), and the design that the script writes."""
    for name, code in STUBS.items():
        (folder / f"{name}.py").parent.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(code)
    (folder / "P_prompt.txt").write_text("Invert.\n")
    (folder / "P_ifc.txt").write_text(HEADER)
    for i, text in enumerate(texts):
        (folder / f"{i}_response.txt").write_text(text, newline="")
    command = [sys.executable, "-c", MANY, str(SCRIPT), task, str(folder), str(len(texts))]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(folder)}, check=True, timeout=120)
    return [((folder / f"{i}_response.txt").read_text(), (folder / f"{i}.sv").read_text()) for i in range(len(texts))]


def _told_again(text: str, interface: str) -> list[str]:
    """The rule as one walk over the lines with a state, as the paper's harness is described."""
    lines, ticks, module, early = text.splitlines(), 0, False, False
    for line in lines:
        if line[:3] == "```":
            ticks += 1
        elif line[:9] == "endmodule":
            early |= not module
        else:
            module |= line[:16] == "module TopModule"
    module &= not early
    if not interface:
        state, code = "before", list[str]()
        for line in lines:
            bare = line.strip()
            if state == "before" and bare[:7] == "[BEGIN]":
                state = "within"
                code += [line.lstrip().replace("[BEGIN]", "")] if bare != "[BEGIN]" else []
            elif state == "within":
                ends = bare[-6:] == "[DONE]"
                code += [line.rstrip().replace("[DONE]", "") if ends else line] if bare != "[DONE]" else []
                state = "behind" if ends else state
        if state != "before":
            return code if state == "behind" else []
    code, seen, begun, ended = [interface, ""] if interface and not module else [], 0, False, False
    for line in lines:
        begun |= line.strip()[:16] == "module TopModule"
        fence = line[:3] == "```"
        shown = seen == 1 if ticks >= 2 else not ended and (begun or not module)
        code += [line] if shown and not fence else []
        seen += fence
        ended |= not fence and line.strip()[:9] == "endmodule"
    return code


def _lines(text: str) -> list[str]:
    """What the simulator reads: without the script's remarks, and without empty lines at either end."""
    return "\n".join(line for line in text.split("\n") if not line.startswith(REMARK)).strip("\n").split("\n")


@pytest.mark.parametrize("interface", ["", HEADER])
def test_the_rule_told_again(interface: str) -> None:
    for text in answers(500):
        assert _lines(official.extract(text, interface)) == _lines("\n".join(_told_again(text, interface))), text


@pytest.mark.skipif(not SCRIPT.is_file(), reason="no checkout of NVlabs/verilog-eval with its scripts")
@pytest.mark.parametrize(("task", "interface"), [("spec-to-rtl", ""), ("code-complete-iccad2023", HEADER)])
def test_the_official_script_extracts_the_same(task: str, interface: str, tmp_path: Path) -> None:
    for text, design in scripted(answers(500, seed=1), task, tmp_path):
        assert _lines(official.extract(text, interface)) == _lines(design), text


PINS = (".clk, .rst, .d, .q(", ".a(rst), .b(")


def _problem(interface: str) -> Problem:
    """One that the answers' `b = a` solves."""
    test = TESTBENCH.replace("[3:0] q_ref, q_dut", "q_ref, q_dut").replace(*PINS)
    return Problem("P", "", HEADER.replace("TopModule", "RefModule") + "assign b = a;\nendmodule\n", test, interface)


def _alternatives(text: str) -> bool:
    """Whether the answer also holds the wrong design: the two rules may choose otherwise between two."""
    return "assign b = ~a;" in text


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.is_file(), reason="no checkout of NVlabs/verilog-eval with its scripts")
@pytest.mark.parametrize(("task", "interface"), [("spec-to-rtl", ""), ("code-complete-iccad2023", HEADER)])
def test_the_verdicts_are_those_of_the_official_harness(task: str, interface: str, tmp_path: Path) -> None:
    """Of 500 answers, script, compilation, simulation and analysis of the one side against those of the other; by our
    own rule no answer that has one design alone fares worse."""
    problem, simulator = _problem(interface), Simulator(find_confinement(), Limits(seconds=20.0))
    golden = simulate.golden(problem, simulator)

    @functools.cache
    def theirs(design: str) -> bool:
        return analyzed(run_bare(problem, design, 20.0), design) == "."

    @functools.cache
    def graded(design: str) -> bool:
        return simulate.grade(problem, design, golden, simulator).passed

    def ours(text: str, rule: Rule) -> bool:
        design = admitted(text, interface, simulator, rule)
        return isinstance(design, str) and graded(design)

    rows = [(text, theirs(design)) for text, design in scripted(answers(500, seed=1), task, tmp_path)]
    assert [text for text, passed in rows if ours(text, "official") != passed] == []
    assert [text for text, passed in rows if passed and not ours(text, "default") and not _alternatives(text)] == []
    better = sum(ours(text, "default") and not passed for text, passed in rows)
    assert sum(passed for _, passed in rows) > 20 and better > 20


def test_by_name() -> None:
    first, second = (f"```verilog\n{HEADER}  assign b = {b};\nendmodule\n```\n" for b in ("a", "~a"))
    assert "= a;" in (extract(first + second, rule="official") or "")
    assert "~a" in (extract(first + second) or "")
    assert extract("", rule="official") is None and extract("[BEGIN]\nno end", rule="official") is None
    assert extract("I cannot.", rule="official") == "I cannot.\n"
