"""Designs that try to pass without doing the work. None may pass, with admission before them or without."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from common.benchmark.problems import Problem
from eval.grade import simulate
from eval.grade.admit import Refused, admit
from eval.grade.simulate import Simulator, Verdict
from eval.sandbox.run import Limits

LINE = '$display("Mismatches: 0 in 64 samples");'
CHEATS = {
    "prints the verdict": f"initial {LINE}",
    "prints the verdict and finishes": f"initial begin {LINE} $finish; end",
    "prints the verdict in final": f"final {LINE}",
    "prints with write": 'initial $write("Mismatches: 0 in 64 samples\\n");',
    "prints by monitor": 'initial $monitor("Mismatches: 0 in 64 samples");',
    "prints at the end by strobe": 'always @(negedge clk) $strobe("Mismatches: 0 in 64 samples");',
    "prints look-alikes": 'initial $display("Misma\\u0442ches: 0 in 64 samples\\nMismatches: 0 in 64 samples");',
    "prints the reference's name": 'final $display("%m Mismatches: 0 in 64 samples");',
    "copies the reference": "always @* q = tb.good1.q;",
    "copies the reference from beside": "always @* q = good1.q;",
    "copies the testbench's wire": "always @* q = tb.q_ref;",
    "copies an undeclared wire": "always @* q = q_ref;",
    "copies by the type's name": "always @* q = RefModule.q;",
    "copies from the root": "always @* q = $root.tb.good1.q;",
    "instantiates the reference": "wire [3:0] w; RefModule r (.clk, .rst, .d, .q(w)); always @* q = w;",
    "zeroes the errors": "always @(clk) tb.stats1.errors = 0;",
    "zeroes the errors from beside": "always @(clk) stats1.errors = 0;",
    "zeroes the errors at the end": "final tb.stats1.errors = 0;",
    "finishes at once": "initial $finish;",
    "finishes later": "initial #20 $finish;",
    "stops": "initial $stop;",
    "fails": "initial $fatal(0);",
    "fails before it is seen": "initial begin q = 0; #12 $fatal(0); end",
    "forces its own inputs": "initial begin force d = 0; force rst = 0; q = 0; end",
    "forces its inputs to a reset": "initial begin force rst = 1; q = 0; end",
    "drives its inputs": "assign d = 0; assign rst = 1; always @* q = 0;",
    "forces the match": "initial force tb.tb_match = 1;",
    "forces the match from beside": "initial force tb_match = 1;",
    "forces the reference": "initial begin force tb.good1.q = 0; q = 0; end",
    "forces the design's side": "initial force tb.q_dut = tb.q_ref;",
    "releases the clock": "initial release tb.clk;",
    "disables the testbench": "initial disable tb.settle;",
    "disables the stimulus": "initial disable stim1.settle;",
    "calls the stimulus": "initial stim1.settle(1);",
    "stops the clock": "initial begin tb.clk = 0; force tb.clk = 0; end",
    "defines over the parameters": "defparam tb.good1.p = 1;",
    "holds the time still": "always @(posedge clk) while (1) q = d;",
    "yields nothing": "always @* q = 4'bx;",
    "yields high impedance": "always @* q = 4'bz;",
    "reseeds the stimulus": "integer s; always @(clk) begin s = $random; q = 0; end",
    "reads the program": 'integer f; initial begin f = $fopen("/proc/self/fd/0", "r"); $display("%0d", f); end',
    "reads what was printed": 'integer f, c; final begin f = $fopen("/proc/self/fd/1", "r"); c = $fgetc(f); end',
    "hides behind a condition": "`ifdef __ICARUS__\nalways @* q = tb.good1.q;\n`else\nalways @* q = d + q;\n`endif",
    "hides behind the testbench's macro": "`ifdef OK\nalways @* q = tb.good1.q;\n`else\nalways @* q = d;\n`endif",
    "escapes the names": "always @* q = \\tb .\\good1 .q ;",
    "loads a VPI module": 'initial $load_vpi("cheat.vpi");',
    "calls the system": 'initial $system("true");',
    "asks VPI for the plus-arguments": 'integer n; initial if ($value$plusargs("n=%d", n)) q = n;',
    "annotates delays from a file": 'initial $sdf_annotate("x.sdf", tb);',
    "races at time zero": "initial #0 tb.stats1.errors = 0;",
    "races to the reference's value": "initial begin q = tb.good1.q; forever @(tb.good1.q) q = tb.good1.q; end",
    "prints after the end": 'final begin #0 $display("Mismatches: 0 in 64 samples"); end',
    "prints the testbench's hint": "final $display(\"Hint: Output 'q' has no mismatches.\");",
    "reseeds the world": "integer s; initial begin s = 0; repeat (1000) s = $random(s); q = s; end",
    "shifts time": 'initial begin $timeformat(-12, 0, "", 0); q = 0; end',
    "deassigns the reference": "initial deassign tb.good1.q;",
    "assigns into the testbench": "initial assign tb.q_dut = tb.q_ref;",
    "waits for the judge": "always @(tb.tb_mismatch) q = ~q;",
    "reads the wave file": 'integer f; initial begin f = $fopen("wave.vcd", "r"); q = $fgetc(f); end',
    "hides a name in a macro": "`define E(a, b) a``b.q\nalways @* q = `E(go, od1);",
}
OUTSIDE = {
    "redefines the testbench's words": "`define errors clocks*0\nmodule TopModule {h};\nendmodule\n",
    "defines a second testbench": f"module TopModule {{h}};\nendmodule\nmodule tb; initial {LINE} endmodule\n",
    "defines the reference": "module TopModule {h};\nassign q = 0;\nendmodule\nmodule RefModule {h};\nendmodule\n",
    "binds to the testbench": "module TopModule {h};\nendmodule\nbind tb TopModule t();\n",
    "includes the reference": '`include "ref.sv"\nmodule TopModule {h};\nendmodule\n',
    "switches nets off": "`default_nettype none\nmodule TopModule {h};\nendmodule\n",
    "takes its inputs as outputs": (
        "module TopModule (output clk, output rst, output [3:0] d, output [3:0] q);\n"
        "assign rst = 1;\nassign q = 0;\nendmodule\n"
    ),
    "takes its inputs both ways": (
        "module TopModule (inout clk, inout rst, inout [3:0] d, output [3:0] q);\n"
        "assign (supply0, supply1) rst = 1;\nassign q = 0;\nendmodule\n"
    ),
    "has a config": "module TopModule {h};\nendmodule\nconfig c; design tb; endconfig\n",
    "has a program": f"module TopModule {{h}};\nendmodule\nprogram p; initial {LINE} endprogram\n",
}
HEADER = "(input clk, input rst, input [3:0] d, output reg [3:0] q)"


@pytest.fixture(scope="module")
def impatient(simulator: Simulator) -> Simulator:
    return replace(simulator, limits=Limits(seconds=1.5))


def test_the_honest_pass(problem: Problem, golden: Verdict, simulator: Simulator, solve: Callable[[str], str]) -> None:
    assert golden.passed and golden.samples == 64 and golden.witness
    assert admit(solve(problem.task_id))
    assert simulate.grade(problem, solve(problem.task_id), golden, simulator).passed


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes_even_where_admission_is_blind(
    name: str, problem: Problem, golden: Verdict, impatient: Simulator, top: Callable[[str], str]
) -> None:
    design = top(CHEATS[name].encode().decode("unicode_escape") if "look" in name else CHEATS[name])
    assert not simulate.grade(problem, design, golden, impatient).passed


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_cheat_around_the_module_passes(name: str, problem: Problem, golden: Verdict, impatient: Simulator) -> None:
    design = OUTSIDE[name].replace("{h}", HEADER)
    assert not simulate.grade(problem, design, golden, impatient).passed


def test_nothing_is_left_for_a_later_sample(
    problem: Problem, golden: Verdict, simulator: Simulator, top: Callable[[str], str]
) -> None:
    """The first run leaves a file, the second may show itself by it: neither writes, and neither finds anything."""
    leaves = 'integer f; initial begin f = $fopen("left", "w"); q = 0; $display("opened %0d", f); end'
    finds = (
        'integer f; initial begin f = $fopen("left", "r"); if (f == 0) $display("nothing"); else $display("found"); '
    )
    for body in (leaves, finds + "end"):
        with pytest.raises(Refused):
            admit(top(body))
        assert not simulate.grade(problem, top(body), golden, simulator).passed
    verdict = simulate.grade(problem, top(finds + "$fatal(0); end"), golden, simulator)
    assert verdict.category == "runtime" and "nothing" in verdict.detail and "found" not in verdict.detail


@pytest.mark.parametrize("bend", ["forces its own inputs", "forces its inputs to a reset", "drives its inputs"])
def test_inputs_are_bent_for_the_design_alone(
    bend: str, problem: Problem, golden: Verdict, simulator: Simulator, top: Callable[[str], str]
) -> None:
    verdict = simulate.grade(problem, top(CHEATS[bend]), golden, simulator)
    assert verdict.category == "mismatch" and verdict.witness == golden.witness


def test_a_shifted_stimulus_is_seen(
    problem: Problem, golden: Verdict, simulator: Simulator, solve: Callable[[str], str]
) -> None:
    """Right for the stimulus that it makes itself, but that is not the stimulus of the golden run."""
    design = solve(problem.task_id).replace("endmodule", "integer s; always @(clk) s = $random;\nendmodule")
    verdict = simulate.grade(problem, design, golden, simulator)
    assert verdict.category == "rejected" and "own run" in verdict.detail and verdict.mismatches == 0


def test_every_run_has_its_own_names(problem: Problem) -> None:
    first, second = simulate.harness.build(problem), simulate.harness.build(problem)
    assert first is not None and second is not None
    assert first.suffix != second.suffix and first.mark != second.mark
    for name in ("tb", "RefModule", "stimulus_gen", "good1", "stim1", "top_module1", "stats1", "settle"):
        assert name not in simulate.harness.blank(first.test + first.reference).replace(".", " ").split()
