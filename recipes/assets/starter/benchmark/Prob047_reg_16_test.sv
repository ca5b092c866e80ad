`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [15:0] a,
  output reg reset
);

  task draw;
    begin
      a = $urandom;
      if ($urandom % 8 == 0) a = {16{$urandom % 2 == 0}};
    end
  endtask

  initial begin
    reset = 1;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    reset = 0;
    repeat (80) @(tb_clk) #1 begin draw; end
    @(posedge tb_clk) #1 reset = 1; @(negedge tb_clk) #1 reset = 0;
    repeat (40) @(tb_clk) #1 begin draw; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 reset = 1; @(negedge tb_clk) #1 reset = 0; end
    repeat (200) @(tb_clk) #1 begin draw; reset = $urandom % 16 == 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire [15:0] a;
  wire reset;
  wire [15:0] dout_ref, dout_dut;
  integer tb_bad_dout = 0, tb_first_dout = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .a(a), .reset(reset));
  RefModule good (.clock(tb_clk), .a(a), .reset(reset), .dout(dout_ref));
  TopModule dut (.clock(tb_clk), .a(a), .reset(reset), .dout(dout_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_dout = (dout_dut ==? dout_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_dout)) tb_errors = tb_errors + 1;
    if (!tb_ok_dout) begin
      if (tb_bad_dout == 0) tb_first_dout = $time;
      tb_bad_dout = tb_bad_dout + 1;
    end
  end

  final begin
    if (tb_bad_dout == 0) $display("Hint: Output 'dout' has no mismatches.");
    else $display("Hint: Output 'dout' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_dout, tb_first_dout);
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
