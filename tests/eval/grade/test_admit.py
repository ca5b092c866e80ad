"""What admission lets through and what it names."""

from collections.abc import Callable

import pytest

from eval.grade.admit import rejection

WELCOME = {
    "structs": "typedef struct packed { logic a; logic b; } pair; pair p; always @* begin p.a = d[0]; q = p.a; end",
    "generate blocks": (
        "genvar i; generate for (i = 0; i < 4; i = i + 1) begin : g wire w; assign w = d[i]; end endgenerate\n"
        "always @* q = g[0].w;"
    ),
    "functions": "function [3:0] f(input [3:0] x); f = x + $clog2(8); endfunction\nalways @* q = f(d);",
    "enums": "typedef enum logic [1:0] {IDLE, RUN} state_t; state_t s; always @* q = $signed(s == IDLE);",
    "its own blocks": "integer i; always @* begin : loop for (i = 0; i < 4; i = i + 1) if (d[i]) disable loop; end",
    "debug prints": 'always @* begin q = d; $display("q %d tb.x $finish", q); end // $finish tb.good1.q',
    "its own hierarchy": "sub h (.d(d)); always @* q = h.q;\nendmodule\nmodule sub (input [3:0] d); wire [3:0] q = d;",
    "packages": "import p::*; always @* q = p::K;\nendmodule\npackage p; localparam K = 3; endpackage\nmodule unused;",
}
BARRED = {
    "include": ('`include "x.sv"', "`include"),
    "finish": ("initial $finish;", "$finish"),
    "finish in a macro": ("`define F $finish\ninitial `F;", "$finish"),
    "a glued name": ("`define F(x) $``x\ninitial `F(finish);", "$``"),
    "finish in a hidden branch": ("`ifdef NEVER\ninitial $finish;\n`endif", "$finish"),
    "files": ('integer f = $fopen("x");', "$fopen"),
    "memory files": ('reg [3:0] m [0:3]; initial $readmemh("/etc/passwd", m);', "$readmemh"),
    "dumps": ('initial $dumpfile("x.vcd");', "$dumpfile"),
    "an escaped path": ("always @* q = \\tb .q_ref;", "reference out"),
    "a bare instance": ("always @* q = good1.q;", "good1.q"),
    "a path in a macro": ("`define R(x) x.q\nalways @* q = `R(good1);", "good1.q"),
    "a path for icarus only": ("`ifdef __ICARUS__\nalways @* q = good1.q;\n`endif", "good1.q"),
    "the root": ("always @* q = $root.tb.q;", "$root"),
    "force": ("initial force d = 0;", "force"),
    "release": ("initial release d;", "release"),
    "disable": ("initial disable tb.settle;", "tb"),
    "defparam": ("defparam tb.good1.W = 1;", "tb.good1"),
    "an event": ("event e; initial -> tb.done;", "tb.done"),
    "a DPI import": ('import "DPI-C" function int f();', "DPI import"),
    "bind": ("endmodule\nbind tb TopModule t();\nmodule other;", "bind"),
    "a testbench": ("endmodule\nmodule tb;", "tb"),
    "a reference": ("endmodule\nmodule RefModule;", "RefModule"),
    "a program": ("endmodule\nprogram p; endprogram\nmodule other;", "program"),
}


@pytest.mark.parametrize("name", WELCOME)
def test_honest_constructs_are_welcome(name: str, top: Callable[[str], str]) -> None:
    assert rejection(top(WELCOME[name])) is None


@pytest.mark.parametrize("name", BARRED)
def test_barred_constructs_are_named(name: str, top: Callable[[str], str]) -> None:
    body, reason = BARRED[name]
    assert reason in (rejection(top(body)) or "")


def test_broken_text_is_left_to_the_simulator(top: Callable[[str], str]) -> None:
    assert rejection(top("always @(posedge clk q <= ;")) is None
    assert rejection("module TopModule (input a") is None
