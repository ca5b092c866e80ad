`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg ena,
  output reg aresetn
);

  task draw;
    begin
      ena = $urandom;
    end
  endtask

  initial begin
    aresetn = 0;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    aresetn = 1;
    repeat (280) @(tb_clk) #1 begin draw; ena = 1; end
    @(posedge tb_clk) #1 aresetn = 0; @(negedge tb_clk) #1 aresetn = 1;
    repeat (130) @(tb_clk) #1 begin draw; ena = 1; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 aresetn = 0; @(negedge tb_clk) #1 aresetn = 1; end
    repeat (200) @(tb_clk) #1 begin draw; aresetn = $urandom % 16 != 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire ena;
  wire aresetn;
  wire tick_ref, tick_dut;
  integer tb_bad_tick = 0, tb_first_tick = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .ena(ena), .aresetn(aresetn));
  RefModule good (.clk(tb_clk), .ena(ena), .aresetn(aresetn), .tick(tick_ref));
  TopModule dut (.clk(tb_clk), .ena(ena), .aresetn(aresetn), .tick(tick_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_tick = (tick_dut ==? tick_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_tick)) tb_errors = tb_errors + 1;
    if (!tb_ok_tick) begin
      if (tb_bad_tick == 0) tb_first_tick = $time;
      tb_bad_tick = tb_bad_tick + 1;
    end
  end

  final begin
    if (tb_bad_tick == 0) $display("Hint: Output 'tick' has no mismatches.");
    else $display("Hint: Output 'tick' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_tick, tb_first_tick);
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
