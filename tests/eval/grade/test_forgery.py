"""Every bend of the compared values in every way of hiding it: none passes, and a text is judged as it is simulated."""

import contextlib
import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.grader.forgery import BENDS, CLOCKS, HIDDEN, attacks, constant
from common.benchmark.problems import Problem
from eval.grade import preprocess, simulate
from eval.grade.admit import Refused, admit
from eval.grade.simulate import Simulator
from eval.grade.tokens import Unreadable, joined, tokens
from eval.grade.verdict import Verdict
from eval.sandbox.run import MIB, Limits, find_confinement

WORST = ("force", "tranif1", "inout", "random")


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(find_confinement(), Limits(seconds=5.0, memory=512 * MIB))


def _graded(problem: Problem, text: str, golden: Verdict, simulator: Simulator) -> Verdict:
    design = preprocess.admitted(text, simulator.sandbox, simulator.limits)
    return design if isinstance(design, Verdict) else simulate.grade(problem, design, golden, simulator)


def test_a_constant_is_seen_and_none_of_its_bends_passes(
    problem: Problem, golden: Verdict, simulator: Simulator
) -> None:
    assert _graded(problem, constant(problem), golden, simulator).category == "mismatch"
    kinds = dict(attacks(problem))
    assert len(kinds) == len(BENDS) + len(CLOCKS) >= 40
    found = {name: _graded(problem, text, golden, simulator) for name, text in kinds.items()}
    assert [name for name, verdict in found.items() if verdict.passed] == []


def test_the_guards_hold_where_admission_is_blind(problem: Problem, golden: Verdict, simulator: Simulator) -> None:
    found = {name: simulate.grade(problem, text, golden, simulator) for name, text in attacks(problem)}
    assert [name for name, verdict in found.items() if verdict.passed] == []
    assert sum(verdict.samples > 0 for verdict in found.values()) > len(found) / 2


@pytest.mark.parametrize("name", WORST)
def test_no_way_of_hiding_helps(name: str, problem: Problem, golden: Verdict, simulator: Simulator) -> None:
    hidden = [(kind, text) for kind, text in attacks(problem, tuple(HIDDEN)) if kind.startswith(f"{name}, ")]
    assert len(hidden) == len(HIDDEN)
    found = {kind: _graded(problem, text, golden, simulator) for kind, text in hidden}
    assert [kind for kind, verdict in found.items() if verdict.passed] == []
    if name == "force":
        simulated = {kind for kind, verdict in found.items() if verdict.category in ("mismatch", "runtime")}
        assert simulated <= {f"{name}, escaped"}, found


@pytest.mark.slow
def test_every_bend_in_every_hiding(problem: Problem, golden: Verdict, simulator: Simulator) -> None:
    for kind, text in attacks(problem, tuple(HIDDEN)):
        assert not _graded(problem, text, golden, simulator).passed, kind


_WORDS = (
    "a",
    "q",
    "4'b10x0",
    "'1",
    "1.5e3",
    '"s\\" `x /* "',
    "$time",
    "\\esc ",
    "(* k *)",
    "@(*)",
    "<<<=",
    "//c\n",
    "/*c*/",
)
_LINES = (
    "`timescale 1ns / 1ps",
    "`default_nettype none",
    "`resetall",
    '`line 3 "x" 0',
    "`delay_mode_zero",
    "`pragma x",
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*_WORDS, *(f"\n{line}\n" for line in _LINES)]), max_size=12))
def test_the_text_made_of_the_words_reads_as_itself(parts: list[str]) -> None:
    text = joined(tokens(" ".join(parts)))
    assert joined(tokens(text)).split() == text.split()
    assert "//" not in text and "`x" not in text


@pytest.mark.parametrize(
    "text",
    [
        *(f"initial {a}{b} x = 0;" for a, b in itertools.product(("1'b0", "'hf_", "3", "2.5"), ("force", "tran"))),
        "`define x y", "` timescale 1ns/1ns", "`timescale 1ns/1nsec", "`timescale 3ns/1ns", "`resetall_x",
        "`include \"x\"", "`default_nettype trix", "`begin_keywords \"2050\"", '"open', '"open\n"', "/* open",
        "\x00", "\ufeff", "é", "\x7f", "$$finish", "`" * 5, "\\",
    ],
)  # fmt: skip
def test_what_two_readers_could_take_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        admit(text)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("module m; `timescale 1ns/1ns endmodule", "module m;\n`timescale 1ns/1ns\nendmodule"),
        ("endmodule /* x */`default_nettype tri1// y", "endmodule\n`default_nettype tri1 "),
        ("`timescale 1ns/1ps; module m;", "`timescale 1ns/1ps\n; module m;"),
        ("`delay_mode_zero module m;", " module m;"),
        ("wire \\a+b , \\c , \\tb.clk ; assign \\a+b = \\tb.clk ;",
         "wire escaped0 , \\c , escaped1 ; assign escaped0 = escaped1 ;"),
        ("wire \\a+b , escaped0;", "wire escaped_0 , escaped0;"),
        ('"a\\\nb\\\r\n"', '"ab"'),
        ('`begin_keywords "1364-2001"\nwire bind, force;\n`end_keywords\nbind',
         '`begin_keywords "1364-2001"\nwire \\bind , force;\n`end_keywords\nbind'),
    ],
)  # fmt: skip
def test_what_one_reader_could_take_otherwise_is_written_plainly(written: str, read: str) -> None:
    assert joined(tokens(written)) == read


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=0x2FF), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Unreadable):
        once = joined(tokens(text))
        assert joined(tokens(once)) == once


HUGE = {
    "recursive macro": "`define R `R `R\nmodule TopModule; `R endmodule",
    "doubling macros": "`define M0 x\n" + "".join(f"`define M{i} `M{i - 1} `M{i - 1}\n" for i in range(1, 40)) + "`M39",
    "deep parentheses": "module TopModule; assign q = " + "(" * 200_000 + "1" + ")" * 200_000 + "; endmodule",
    "deep blocks": "module TopModule; initial " + "begin " * 100_000 + "end " * 100_000 + "endmodule",
    "deep conditions": "`ifndef N\n" * 50_000 + "module TopModule; endmodule\n" + "`endif\n" * 50_000,
    "ten megabytes": "module TopModule; " + "wire w; " * 1_300_000 + "endmodule",
    "an endless comment": "/*" * 1_000_000,
    "a lone surrogate": "module TopModule; // \ud83d\nendmodule",
    "surrogates as words": "module TopModule; \udc80 \udcff endmodule",
    "a NUL": "module TopModule; \0 endmodule",
    "includes itself": '`include "design.sv"\nmodule TopModule; endmodule',
    "includes a device": '`include "/dev/urandom"\nmodule TopModule; endmodule',
}


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_much_gets_a_bounded_verdict(
    name: str, problem: Problem, golden: Verdict, simulator: Simulator
) -> None:
    impatient = replace(simulator, limits=replace(simulator.limits, seconds=2.0))
    assert not _graded(problem, HUGE[name], golden, impatient).passed


@pytest.mark.parametrize("name", ["/dev/null", "/usr/lib/os-release", "constants.vams"])
def test_an_include_that_succeeds_is_refused_by_name(name: str, simulator: Simulator) -> None:
    text = f'`define I(x) `x "{name}"\n`I(include)\nmodule TopModule (input a, output q); assign q = a; endmodule\n'
    for written in (text, text.replace("`I(include)", f'`include "{name}"')):
        found = preprocess.admitted(written, simulator.sandbox, simulator.limits)
        assert isinstance(found, Verdict) and found.category == "rejected" and name in found.detail, found


PROSE = (
    "This will force the output. Explanation: muxes. The bus is inout; see tb.q.\n",
    "Use `sel` to release the latch: $finish is not needed, alias the two!\n",
)


@pytest.mark.parametrize("words", PROSE)
def test_prose_is_a_syntax_error_and_nothing_worse(words: str, simulator: Simulator) -> None:
    text = f"module TopModule (input a, output q);\nassign q = a;\nendmodule\n{words}"
    found = preprocess.admitted(text, simulator.sandbox, simulator.limits)
    assert isinstance(found, Verdict) and found.category == "syntax"
