"""However a testbench connects the design and declares its inputs: they are one-way, and all of them are recorded."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from common.benchmark.problems import Problem
from eval.grade import simulate
from eval.grade.simulate import Simulator

PINS = "TopModule top_module1 (.clk, .rst, .d, .q(q_dut));"
CONNECTED = {
    "by name": PINS,
    "by star": "TopModule top_module1 (.*, .q(q_dut));",
    "by name and star": "TopModule top_module1 (.q(q_dut), .d(d), .*);",
    "in order": "TopModule top_module1 (clk, rst, d, q_dut);",
    "with parameters": "TopModule #(.W((4))) top_module1 (.clk, .rst(rst), .d((d)), .q(q_dut));",
    "to expressions": "TopModule top_module1 (clk, (rst), {d[3:2], d[1:0]}, q_dut);",
}
DECLARED = {
    "by literals": "logic [3:0] d;",
    "by a parameter": "localparam W = 4; logic [W-1:0] d;",
    "by a macro": "\n`define WIDE [3:0]\nlogic `WIDE d;",
    "by a type": "typedef logic [3:0] nibble; nibble d;",
    "as a struct": "typedef struct packed { logic [1:0] a, b; } pair; pair d;",
    "in two dimensions": "logic [1:0][1:0] d;",
}
COUNTER = "always @(posedge clk) if (rst) q <= 0; else q <= q + 1;"


@pytest.fixture(scope="module")
def counting(problem: Problem) -> Problem:
    """Its outputs say nothing of `d`: only the record can tell of it."""
    test = problem.test.replace("rst <= ($random & 15) == 0;", "")
    return replace(problem, test=test, reference=problem.reference.replace("q + d", "q + 1"))


VARIANTS = [(pins, "by literals") for pins in CONNECTED] + [("by name", declared) for declared in DECLARED]


@pytest.mark.parametrize(("pins", "declared"), VARIANTS[1:])
def test_inputs_are_one_way_and_recorded(
    pins: str, declared: str, counting: Problem, simulator: Simulator, top: Callable[[str], str]
) -> None:
    before, _, after = counting.test.partition("module tb();")
    other = after.replace(PINS, CONNECTED[pins]).replace("logic [3:0] d;", DECLARED[declared])
    assert other != after or (pins, declared) == VARIANTS[0]
    problem = replace(counting, test=f"{before}module tb();{other}")
    design = top(COUNTER)
    if pins == "with parameters":
        problem = replace(problem, reference=problem.reference.replace("RefModule (", "RefModule #(parameter W = 4) ("))
        design = design.replace("TopModule (", "TopModule #(parameter W = 4) (")
    golden = simulate.golden(problem, simulator)
    assert golden.passed and golden.witness, golden
    assert simulate.grade(problem, design, golden, simulator).passed
    forced = simulate.grade(problem, design.replace("endmodule", "initial force d = 7; endmodule"), golden, simulator)
    assert forced.passed, "a force that the stimulus and the reference would feel"
    shifted = design.replace("endmodule", "integer s; always @(clk) s = $random; endmodule")
    assert simulate.grade(problem, shifted, golden, simulator).category == "rejected"


def test_top_bits_do_not_cancel(counting: Problem, simulator: Simulator, top: Callable[[str], str]) -> None:
    """Flips of the uppermost bits of two folded words would cancel under any odd key, were words scaled and added."""
    assert "d <= $random;" in counting.test
    wide = counting.test.replace("[3:0] d", "[63:0] d").replace("d <= $random;", "d <= {$random, $random} ^ FLIPS;")
    clocked = "always @(posedge clk, negedge clk) n <= n + 1; reg [7:0] n = 0;\n"
    at = "output logic rst);\n"
    plain = wide.replace(at, f"{at}  wire [63:0] FLIPS = 0;\n", 1)
    flips = "wire [63:0] FLIPS = {4'd0, n == 20 || n == 21, 59'd0};\n"
    bent = wide.replace(at, f"{at}  {clocked}  {flips}", 1)
    reference = counting.reference.replace("input [3:0] d", "input [63:0] d")
    golden = simulate.golden(replace(counting, test=plain, reference=reference), simulator)
    assert golden.passed, golden
    design = top(COUNTER).replace("input [3:0] d", "input [63:0] d")
    assert simulate.grade(replace(counting, test=plain, reference=reference), design, golden, simulator).passed
    found = simulate.grade(replace(counting, test=bent, reference=reference), design, golden, simulator)
    assert found.category == "rejected" and found.mismatches == 0


def test_each_golden_run_has_a_key_of_its_own(counting: Problem, simulator: Simulator) -> None:
    first, second = simulate.golden(counting, simulator), simulate.golden(counting, simulator)
    assert first.key != second.key and first.key % 2 == 1 and first.witness != second.witness


def test_what_the_testbench_declares_outside_its_modules_is_out_of_reach(
    counting: Problem, simulator: Simulator, top: Callable[[str], str]
) -> None:
    """A name outside of modules needs no path to be reached: the tally there has one that no design can know."""
    test = counting.test.replace("stats1.errors++", "wrong++").replace("stats1.errors,", "wrong,")
    problem = replace(counting, test="int wrong = 0, right;\n" + test.replace("stats1.errors ==", "wrong =="))
    golden = simulate.golden(problem, simulator)
    assert simulate.grade(problem, top(COUNTER), golden, simulator).passed
    assert simulate.grade(problem, top("always @* q = 0;"), golden, simulator).category == "mismatch"
    cleared = top("always @* q = 0;\nfinal wrong = 0;")
    assert simulate.grade(problem, cleared, golden, simulator).category == "elaboration"
    tells = problem.reference.replace("q <= 0", "q <= start").replace("endmodule", "always @* now = q;\nendmodule")
    telling = replace(problem, reference=f"localparam start = 0;\nlogic [3:0] now;\n{tells}")
    golden = simulate.golden(telling, simulator)
    assert golden.passed, golden
    assert simulate.grade(telling, top(COUNTER), golden, simulator).passed
    assert simulate.grade(telling, top("always @* q = now;"), golden, simulator).category == "elaboration"


def test_what_cannot_be_connected_is_not_graded(counting: Problem, simulator: Simulator) -> None:
    found = simulate.golden(replace(counting, test=counting.test.replace(PINS, "TopModule top_module1;")), simulator)
    assert found.category == "ungradable" and "connections" in found.detail
