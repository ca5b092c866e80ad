# ruff: noqa: E501
"""Right designs in many styles: each verdict is the official harness's, none is refused."""

import pytest

from benchmarks.grader.agreement import official, run_bare
from common.benchmark.problems import Problem
from eval.grade import preprocess, simulate
from eval.grade.simulate import Simulator
from eval.grade.verdict import Verdict

H = "module TopModule (input clk, input rst, input [3:0] d, output reg [3:0] q);"
L = "module TopModule (input logic clk, input logic rst, input logic [3:0] d, output logic [3:0] q);"
W = "module TopModule (input clk, input rst, input [3:0] d, output [3:0] q);"
STEP = "always @(posedge clk) if (rst) q <= 0; else q <= q + d;"
E = "endmodule\n"
S = "reg [3:0] s; assign q = s; always @(posedge clk) if (rst) s <= 0; else s <= s + d;"
NOUGHT, SPACED, ESCAPED = "{4{1'b0}}", "4 'h 0", "\\next "
STYLES = {
    "plain": f"{H} {STEP} {E}",
    "always_ff": f"{L} always_ff @(posedge clk) if (rst) q <= '0; else q <= q + d; {E}",
    "always_ff and always_comb": f"{L} logic [3:0] n; always_comb n = rst ? 4'd0 : q + d; always_ff @(posedge clk) q <= n; {E}",
    "begin and end with labels": f"{H} always @(posedge clk) begin : step if (rst) begin q <= 0; end else begin q <= q + d; end end {E}",
    "old header": "module TopModule (clk, rst, d, q); input clk, rst; input [3:0] d; output [3:0] q; reg [3:0] q; " + STEP + E,
    "ports in one list": f"module TopModule (input clk, rst, input [3:0] d, output reg [3:0] q); {STEP} {E}",
    "endmodule with a label": f"{H} {STEP} endmodule : TopModule\n",
    "parameter": f"{H.replace('TopModule (', 'TopModule #(parameter W = 4) (')} {STEP.replace('d;', 'd[W-1:0];')} {E}",
    "localparam": f"{H} localparam [3:0] Z = 4'b0000; {STEP.replace('q <= 0', 'q <= Z')} {E}",
    "enum": f"{L} typedef enum logic [1:0] {{IDLE, RUN}} st; st s; always_comb s = rst ? IDLE : RUN; always_ff @(posedge clk) case (s) IDLE: q <= 0; default: q <= q + d; endcase {E}",
    "struct": f"{L} typedef struct packed {{ logic [3:0] v; }} st; st s; assign q = s.v; always_ff @(posedge clk) if (rst) s.v <= 0; else s.v <= s.v + d; {E}",
    "union": f"{L} typedef union packed {{ logic [3:0] v; logic [3:0] w; }} un; un s; assign q = s.w; always_ff @(posedge clk) if (rst) s.v <= 0; else s.v <= s.v + d; {E}",
    "package": "package p; localparam Z = 0; typedef logic [3:0] n; endpackage\n" + f"{L} import p::*; n s; assign q = s; always_ff @(posedge clk) if (rst) s <= p::Z; else s <= s + d; {E}",
    "typedef outside": f"typedef logic [3:0] n;\n{L} n s; assign q = s; always_ff @(posedge clk) if (rst) s <= 0; else s <= s + d; {E}",
    "function": f"{H} function [3:0] f(input [3:0] a, input [3:0] b); f = a + b; endfunction {STEP.replace('q + d', 'f(q, d)')} {E}",
    "automatic function": f"{L} function automatic logic [3:0] f(logic [3:0] a, logic [3:0] b); return a + b; endfunction {STEP.replace('q + d', 'f(q, d)')} {E}",
    "old function": f"{H} function [3:0] f; input [3:0] a, b; begin f = a + b; end endfunction {STEP.replace('q + d', 'f(q, d)')} {E}",
    "task": f"{H} task step(input [3:0] a); q <= q + a; endtask always @(posedge clk) if (rst) q <= 0; else step(d); {E}",
    "generate for": f"{W} reg [3:0] s; genvar i; generate for (i = 0; i < 4; i = i + 1) begin : g assign q[i] = s[i]; end endgenerate always @(posedge clk) if (rst) s <= 0; else s <= s + d; {E}",
    "generate if": f"{H} generate if (1) begin : g wire [3:0] n = q + d; end endgenerate {STEP.replace('q + d', 'g.n')} {E}",
    "implicit generate name": f"{H} if (1) begin wire [3:0] n = q + d; end {STEP.replace('q + d', 'genblk1.n')} {E}",
    "loop": f"{H} integer i; reg c; reg [3:0] n; always @* begin c = 0; for (i = 0; i < 4; i = i + 1) begin n[i] = q[i] ^ d[i] ^ c; c = (q[i] & d[i]) | (c & (q[i] ^ d[i])); end end {STEP.replace('q + d', 'n')} {E}",
    "loop with its variable": f"{L} logic [3:0] n; always_comb begin for (int i = 0; i < 4; i++) n[i] = d[i]; end {STEP.replace('+ d', '+ n')} {E}",
    "while": f"{H} integer i; reg [3:0] n; always @* begin i = 0; n = 0; while (i < 4) begin n[i] = d[i]; i = i + 1; end end {STEP.replace('+ d', '+ n')} {E}",
    "casez": f"{H} reg [3:0] n; always @* casez (d) 4'b???1: n = d; 4'b??1?: n = d; default: n = d; endcase {STEP.replace('+ d', '+ n')} {E}",
    "casex": f"{H} reg [3:0] n; always @* casex (d) 4'bxxx1: n = d; default: n = d; endcase {STEP.replace('+ d', '+ n')} {E}",
    "unique case": f"{L} logic [3:0] n; always_comb unique case (d[0]) 1'b0: n = d; 1'b1: n = d; endcase {STEP.replace('+ d', '+ n')} {E}",
    "full case": f"{H} always @(posedge clk) (* full_case, parallel_case *) case (rst) 1'b1: q <= 0; 1'b0: q <= q + d; endcase {E}",
    "attributes": f'(* keep_hierarchy = "yes" *) {H} (* keep = "true" *) reg [3:0] spare; {STEP} {E}',
    "signed": f"{H} wire signed [3:0] a = q, b = $signed(d); {STEP.replace('q + d', 'a + b')} {E}",
    "unsigned cast": f"{H} {STEP.replace('q + d', '$unsigned(q) + $unsigned(d)')} {E}",
    "initial value": f"{H} initial q = 4'bxxxx; {STEP} {E}",
    "declared value": f"{W} reg [3:0] s = 0; assign q = s; always @(posedge clk) if (rst) s <= 0; else s <= s + d; {E}",
    "submodule by name": f"{W} acc a (.clk(clk), .rst(rst), .d(d), .q(q)); {E}module acc (input clk, rst, input [3:0] d, output reg [3:0] q); {STEP} {E}",
    "submodule by order": f"module add (input [3:0] a, b, output [3:0] y); assign y = a + b; {E}{H} wire [3:0] n; add u (q, d, n); {STEP.replace('q + d', 'n')} {E}",
    "submodule by star": f"{L} acc a (.*); {E}module acc (input clk, rst, input [3:0] d, output reg [3:0] q); {STEP} {E}",
    "submodule parameters": f"{W} acc #(.W(4)) a (.clk(clk), .rst(rst), .d(d), .q(q)); {E}module acc #(parameter W = 2) (input clk, rst, input [W-1:0] d, output reg [W-1:0] q); {STEP} {E}",
    "defparam of its own": f"{W} acc a (.clk(clk), .rst(rst), .d(d), .q(q)); defparam a.W = 4; {E}module acc #(parameter W = 2) (input clk, rst, input [W-1:0] d, output reg [W-1:0] q); {STEP} {E}",
    "instance array": f"{H} wire [3:0] n; bit_of b[3:0] (.a(d), .y(n)); {STEP.replace('+ d', '+ n')} {E}module bit_of (input a, output y); assign y = a; {E}",
    "gates": f"{H} wire [3:0] n; buf b[3:0] (n, d); {STEP.replace('+ d', '+ n')} {E}",
    "primitive": f"{H} wire [3:0] n; same b[3:0] (n, d); {STEP.replace('+ d', '+ n')} {E}primitive same (y, a); output y; input a; table 0 : 0; 1 : 1; endtable endprimitive\n",
    "sequential primitive": f"{H} wire c; dff u (c, clk, rst); {STEP} {E}primitive dff (q, c, d); output q; reg q; input c, d; table (01) 0 : ? : 0; (01) 1 : ? : 1; (0x) ? : ? : -; (?0) ? : ? : -; ? (??) : ? : -; endtable endprimitive\n",
    "timescale": f"`timescale 1ns/1ps\n{H} {STEP} {E}",
    "timescale with a comment": f"`timescale 1ns / 1ps // of the board\n{H} {STEP} {E}",
    "default_nettype none": f"`default_nettype none\nmodule TopModule (input wire clk, input wire rst, input wire [3:0] d, output reg [3:0] q); {STEP} {E}`default_nettype wire\n",
    "resetall": f"`resetall\n{H} {STEP} {E}",
    "celldefine": f"`celldefine\n{H} {STEP} {E}`endcelldefine\n",
    "begin_keywords": f'`begin_keywords "1364-2005"\n{H} {STEP} {E}`end_keywords\n',
    "old keywords as names": f'`begin_keywords "1364-2001"\n{H} wire [3:0] logic = d; {STEP.replace("+ d", "+ logic")} {E}`end_keywords\n',
    "line": f'`line 7 "gen.v" 0\n{H} {STEP} {E}',
    "unconnected_drive": f"`unconnected_drive pull0\n{H} {STEP} {E}`nounconnected_drive\n",
    "define": f"`define W 4\n{H} {STEP.replace('+ d', '+ d[`W-1:0]')} {E}",
    "define with arguments": f"`define ADD(a, b) ((a) + (b))\n{H} {STEP.replace('q + d', '`ADD(q, d)')} {E}",
    "ifdef": f"{H}\n`ifdef FAST\n{STEP.replace('+', '-')}\n`else\n{STEP}\n`endif\n{E}",
    "finish never reached": f"{H} {STEP} always @(posedge clk) if (q === 4'bz) $finish; {E}",
    "stop in a branch": f"{H} {STEP}\n`ifdef DEBUG\ninitial $stop;\n`endif\n{E}",
    "fatal in a guard": f'{H} initial if ($bits(d) != 4) $fatal(1, "width"); {STEP} {E}',
    "elaboration guard": f'{H} if ($bits(q) != 4) $error("width"); {STEP} {E}',
    "display": f'{H} {STEP} always @(posedge clk) if (q == 3) $display("%m %0t q=%h `x", $time, q); {E}',
    "monitor": f'{H} initial $monitor("%b", q); {STEP} {E}',
    "dumps": f'{H} initial begin $dumpfile("w.vcd"); $dumpvars(0, TopModule); end {STEP} {E}',
    "plusargs": f'{H} integer n; initial if ($value$plusargs("n=%d", n)) $display(n); {STEP} {E}',
    "assertion off": f"{H} {STEP} initial $timeformat(-9, 2, \"ns\", 10); {E}",
    "named block disabled": f"{H} {STEP} integer i; always @* begin : b for (i = 0; i < 4; i = i + 1) if (d[i]) disable b; end {E}",
    "own hierarchy": f"{W} acc a (.clk(clk), .rst(rst), .d(d)); assign q = a.s; {E}module acc (input clk, rst, input [3:0] d); reg [3:0] s; always @(posedge clk) if (rst) s <= 0; else s <= s + d; {E}",
    "memory": f"{H} reg [3:0] m [0:1]; always @(posedge clk) m[0] <= d; {STEP} {E}",
    "two dimensions": f"{L} logic [1:0][1:0] s; assign q = s; always_ff @(posedge clk) if (rst) s <= 0; else s <= s + d; {E}",
    "part selects": f"{H} {STEP.replace('+ d', '+ {d[3 -: 2], d[0 +: 2]}')} {E}",
    "replication": f"{H} {STEP.replace('q <= 0', 'q <= ' + NOUGHT)} {E}",
    "conditional": f"{H} always @(posedge clk) q <= rst ? 4'h0 : q + d; {E}",
    "based with spaces": f"{H} {STEP.replace('q <= 0', 'q <= ' + SPACED)} {E}",
    "implicit net": f"{H} assign t = rst; {STEP.replace('(rst)', '(t)')} {E}",
    "escaped name": f"{H} wire [3:0] \\next = q + d; {STEP.replace('q + d', ESCAPED)} {E}",
    "supply and strength": f"{H} supply0 gnd; wire (strong0, strong1) one = 1; {STEP.replace('(rst)', '(rst | gnd)')} {E}",
    "event": f"{H} event e; always @(posedge clk) -> e; {STEP} {E}",
    "specify": f"{H} specify (clk => q) = 1; endspecify {STEP} {E}",
    "own delay of nothing": f"{H} {STEP.replace('<= q', '<= #0 q')} {E}",
    "intermediate and star": f"{H} reg [3:0] n; always @(*) n = q + d; {STEP.replace('q + d', 'n')} {E}",
    "comments and odd space": f"// a `force of $finish\n{H}\t/* tran */\f{STEP} {E}",
    "strings": f'{H} localparam T = "a\\"b\\\\"; {STEP} {E}',
    "odd escaped names": f"{H} wire [3:0] \\q+d = q + d, \\tb.clk = \\q+d ; {STEP.replace('q + d', chr(92) + 'tb.clk ')} {E}",
    "any kind of net": f"`default_nettype wand\n{H} assign t = rst; {STEP.replace('(rst)', '(t)')} {E}",
    "directive behind a module": f"`default_nettype none\nmodule TopModule (input wire clk, input wire rst, input wire [3:0] d, output reg [3:0] q); {STEP} endmodule `default_nettype wire\n",
    "unit of time outside": f"timeunit 1ps; timeprecision 1ps;\nlocalparam Z = 0;\n{H} {STEP.replace('<= q', '<= #1 q').replace('<= 0', '<= #1 $unit::Z')} {E}",
    "keywords of today as names": f'`begin_keywords "1364-2001"\n{H} wire [3:0] program = q + d; {STEP.replace("q + d", "program")} {E}`end_keywords\n',
    "object": f"class acc; int v; function new(); this.v = 1; endfunction endclass\n{L} {STEP} {E}",
    "package handed on": f"package p; localparam Z = 0; endpackage\npackage r; import p::*; export p::*; endpackage\nimport r::*;\n{H} {STEP.replace('q <= 0', 'q <= Z')} {E}",
    "macromodule": f"{W.replace('module', 'macromodule', 1)} {S} {E}",
    "wrong": f"{H} {STEP.replace('+', '-')} {E}",
    "wrong reset": f"{H} always @(posedge clk, posedge rst) if (rst) q <= 0; else q <= q + d; {E}",
    "latched": f"{H} always @* if (clk) q = rst ? 0 : q + d; {E}",
    "broken": f"{H} {STEP} endmodul\n",
    "unknown module": f"{H} absent u (); {STEP} {E}",
    "unknown name": f"{H} {STEP.replace('+ d', '+ x')} {E}",
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_the_verdict_is_the_official_one(style: str, problem: Problem, golden: Verdict, simulator: Simulator) -> None:
    text = STYLES[style]
    design = preprocess.admitted(text, simulator.sandbox, simulator.limits)
    ours = design if isinstance(design, Verdict) else simulate.grade(problem, design, golden, simulator)
    theirs = official(run_bare(problem, text, 10.0), text)
    assert ours.category != "rejected", ours
    assert ours.passed == (theirs == "."), (ours, theirs)
