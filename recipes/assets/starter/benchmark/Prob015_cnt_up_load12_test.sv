`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg clr,
  output reg pl,
  output reg step,
  output reg [11:0] x
);

  task draw;
    begin
      pl = $urandom;
      step = $urandom;
      x = $urandom;
      if ($urandom % 8 == 0) x = {12{$urandom % 2 == 0}};
    end
  endtask

  initial begin
    clr = 1;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    clr = 0;
    repeat (140) @(tb_clk) #1 begin draw; pl = 0; step = 1; end
    @(posedge tb_clk) #1 clr = 1; @(negedge tb_clk) #1 clr = 0;
    repeat (70) @(tb_clk) #1 begin draw; pl = 0; step = 1; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 clr = 1; @(negedge tb_clk) #1 clr = 0; end
    repeat (200) @(tb_clk) #1 begin draw; clr = $urandom % 16 == 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire clr;
  wire pl;
  wire step;
  wire [11:0] x;
  wire [11:0] cnt_ref, cnt_dut;
  integer tb_bad_cnt = 0, tb_first_cnt = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .clr(clr), .pl(pl), .step(step), .x(x));
  RefModule good (.clk(tb_clk), .clr(clr), .pl(pl), .step(step), .x(x), .cnt(cnt_ref));
  TopModule dut (.clk(tb_clk), .clr(clr), .pl(pl), .step(step), .x(x), .cnt(cnt_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_cnt = (cnt_dut ==? cnt_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_cnt)) tb_errors = tb_errors + 1;
    if (!tb_ok_cnt) begin
      if (tb_bad_cnt == 0) tb_first_cnt = $time;
      tb_bad_cnt = tb_bad_cnt + 1;
    end
  end

  final begin
    if (tb_bad_cnt == 0) $display("Hint: Output 'cnt' has no mismatches.");
    else $display("Hint: Output 'cnt' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_cnt, tb_first_cnt);
    $display("Hint: Total mismatched samples is %0d out of %0d samples\n", tb_errors, tb_samples);
    $display("Simulation finished at %0d ps", $time);
    $display("Mismatches: %0d in %0d samples", tb_errors, tb_samples);
  end

  initial begin
    #100000
    $display("TIMEOUT");
    $finish;
  end

endmodule
