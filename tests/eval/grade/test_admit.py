"""What admission lets through and what it names."""

import re
from collections.abc import Callable

import pytest

from eval.grade.admit import Refused, admit

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
    "its own object": "always @* q = d;\nendmodule\nclass c; int v; function new(); this.v = 1; endfunction endclass",
    "packages handed on": "always @* q = d;\nendmodule\npackage p; export *::*; endpackage\nmodule unused;",
    "its own unit": "always @* q = $unit::K;\nendmodule\nlocalparam K = 3;\nmodule unused;",
    "packages": "import p::*; always @* q = p::K;\nendmodule\npackage p; localparam K = 3; endpackage\nmodule unused;",
}
BARRED = {
    "files": ('integer f = $fopen("x");', "$fopen"),
    "an escaped path": ("always @* q = \\tb .q_ref;", "reference out"),
    "a bare instance": ("always @* q = good1.q;", "good1.q"),
    "an indexed path": ("always @* q = good1[0].q;", "good1.q"),
    "the root": ("always @* q = $root.tb.q;", "$root"),
    "force": ("initial force d = 0;", "force"),
    "release": ("initial release d;", "release"),
    "a short": ("tran (d[0], d[1]);", "tran"),
    "an alias": ("alias d = q;", "alias"),
    "both ways": ("endmodule\nmodule other (inout x);", "inout"),
    "disable": ("initial disable settle;", "settle"),
    "defparam": ("defparam tb.good1.W = 1;", "tb.good1"),
    "an event": ("event e; initial -> tb.done;", "tb.done"),
    "a DPI import": ('import "DPI-C" function int f();', "DPI import"),
    "a DPI export": ('export "DPI-C" function f;', "DPI export"),
    "bind": ("endmodule\nbind tb TopModule t();\nmodule other;", "bind"),
    "a testbench": ("endmodule\nmodule tb;", "tb"),
    "a reference": ("endmodule\nmodule RefModule;", "RefModule"),
    "a program": ("endmodule\nprogram p; endprogram\nmodule other;", "program"),
    "a loaded library": ('initial $load_vpi("x");', "$load_vpi"),
}
SILENCED = {
    "initial $finish;": "initial $fdisplay(0);",
    "initial $finish(1);": "initial $fdisplay(0, 1);",
    'initial $display("%m", d);': 'initial $fdisplay(0, "%m", d);',
    "initial $stop();": "initial $fdisplay(0);",
    "initial $fatal(1, q);": "initial $error(1, q);",
    'initial if ($value$plusargs("n=%d", q)) q = 0;': "initial if (0 ) q = 0;",
    "initial if (0) $exit;": "initial if (0) $fdisplay(0);",
    "initial $dumpvars(0, (TopModule));": "initial $fdisplay(0) ;",
    'initial $readmemh("x", m);': "initial $fdisplay(0) ;",
    "always @* q = $signed(d) + $time;": "always @* q = $signed(d) + $time;",
}


@pytest.mark.parametrize("name", WELCOME)
def test_honest_constructs_are_welcome(name: str, top: Callable[[str], str]) -> None:
    assert admit(top(WELCOME[name]))


@pytest.mark.parametrize("name", BARRED)
def test_barred_constructs_are_named(name: str, top: Callable[[str], str]) -> None:
    body, reason = BARRED[name]
    with pytest.raises(Refused, match=re.escape(reason)):
        admit(top(body))


@pytest.mark.parametrize("body", SILENCED)
def test_what_acts_on_the_whole_simulation_does_nothing(body: str) -> None:
    assert admit(body) == SILENCED[body]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("timeunit 1ns; timeprecision 1ps;\n", "`timescale 1ns/1ps"),
        ("\n`resetall\ntimeprecision 10ps ; timeunit 1 us;", "`timescale 1 us/10ps"),
        ("timeunit 100ps / 1fs;", "`timescale 100ps/1fs"),
        ("timeunit 1ms;", "`timescale 1ms/1ms"),
    ],
)
def test_a_unit_of_time_before_the_first_module_is_the_directive(written: str, read: str) -> None:
    """iverilog takes it at the beginning of all texts alone, and the design's is not the first."""
    assert [line.strip() for line in admit(f"{written}module m; endmodule").split("\n") if "timescale" in line] == [
        read
    ]
    inside = "module m; timeunit 1ns; endmodule"
    assert admit(inside) == inside


def test_broken_text_is_left_to_the_simulator(top: Callable[[str], str]) -> None:
    assert admit(top("always @(posedge clk q <= ;"))
    assert admit("module TopModule (input a")
