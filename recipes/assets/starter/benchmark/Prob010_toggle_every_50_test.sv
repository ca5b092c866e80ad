`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg clr_n,
  output reg active
);

  task draw;
    begin
      active = $urandom;
    end
  endtask

  initial begin
    clr_n = 0;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    clr_n = 1;
    repeat (240) @(tb_clk) #1 begin draw; active = 1; end
    @(posedge tb_clk) #1 clr_n = 0; @(negedge tb_clk) #1 clr_n = 1;
    repeat (120) @(tb_clk) #1 begin draw; active = 1; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 clr_n = 0; @(negedge tb_clk) #1 clr_n = 1; end
    repeat (200) @(tb_clk) #1 begin draw; clr_n = $urandom % 16 != 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire clr_n;
  wire active;
  wire slow_clk_ref, slow_clk_dut;
  integer tb_bad_slow_clk = 0, tb_first_slow_clk = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .clr_n(clr_n), .active(active));
  RefModule good (.clock(tb_clk), .clr_n(clr_n), .active(active), .slow_clk(slow_clk_ref));
  TopModule dut (.clock(tb_clk), .clr_n(clr_n), .active(active), .slow_clk(slow_clk_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_slow_clk = (slow_clk_dut ==? slow_clk_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_slow_clk)) tb_errors = tb_errors + 1;
    if (!tb_ok_slow_clk) begin
      if (tb_bad_slow_clk == 0) tb_first_slow_clk = $time;
      tb_bad_slow_clk = tb_bad_slow_clk + 1;
    end
  end

  final begin
    if (tb_bad_slow_clk == 0) $display("Hint: Output 'slow_clk' has no mismatches.");
    else $display("Hint: Output 'slow_clk' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_slow_clk, tb_first_slow_clk);
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
