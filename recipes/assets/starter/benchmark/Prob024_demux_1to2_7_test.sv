`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg s,
  output reg [6:0] in_data
);

  task draw;
    begin
      s = $urandom;
      in_data = $urandom;
      if ($urandom % 8 == 0) in_data = {7{$urandom % 2 == 0}};
    end
  endtask

  initial begin
    draw;
    repeat (200) @(tb_clk) #1 draw;
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire s;
  wire [6:0] in_data;
  wire [6:0] x0_ref, x0_dut;
  wire [6:0] x1_ref, x1_dut;
  integer tb_bad_x0 = 0, tb_first_x0 = 0;
  integer tb_bad_x1 = 0, tb_first_x1 = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .s(s), .in_data(in_data));
  RefModule good (.s(s), .in_data(in_data), .x0(x0_ref), .x1(x1_ref));
  TopModule dut (.s(s), .in_data(in_data), .x0(x0_dut), .x1(x1_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_x0 = (x0_dut ==? x0_ref) === 1'b1;
  wire tb_ok_x1 = (x1_dut ==? x1_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_x0 && tb_ok_x1)) tb_errors = tb_errors + 1;
    if (!tb_ok_x0) begin
      if (tb_bad_x0 == 0) tb_first_x0 = $time;
      tb_bad_x0 = tb_bad_x0 + 1;
    end
    if (!tb_ok_x1) begin
      if (tb_bad_x1 == 0) tb_first_x1 = $time;
      tb_bad_x1 = tb_bad_x1 + 1;
    end
  end

  final begin
    if (tb_bad_x0 == 0) $display("Hint: Output 'x0' has no mismatches.");
    else $display("Hint: Output 'x0' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_x0, tb_first_x0);
    if (tb_bad_x1 == 0) $display("Hint: Output 'x1' has no mismatches.");
    else $display("Hint: Output 'x1' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_x1, tb_first_x1);
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
