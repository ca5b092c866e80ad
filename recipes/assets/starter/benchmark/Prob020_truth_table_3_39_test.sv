`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg a,
  output reg b,
  output reg c
);

  task draw;
    begin
      a = $urandom;
      b = $urandom;
      c = $urandom;
    end
  endtask

  initial begin
    draw;
    repeat (8) @(tb_clk) #1 {a, b, c} = {a, b, c} + 1;
    repeat (200) @(tb_clk) #1 draw;
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire a;
  wire b;
  wire c;
  wire res_ref, res_dut;
  integer tb_bad_res = 0, tb_first_res = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .a(a), .b(b), .c(c));
  RefModule good (.a(a), .b(b), .c(c), .res(res_ref));
  TopModule dut (.a(a), .b(b), .c(c), .res(res_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_res = (res_dut ==? res_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_res)) tb_errors = tb_errors + 1;
    if (!tb_ok_res) begin
      if (tb_bad_res == 0) tb_first_res = $time;
      tb_bad_res = tb_bad_res + 1;
    end
  end

  final begin
    if (tb_bad_res == 0) $display("Hint: Output 'res' has no mismatches.");
    else $display("Hint: Output 'res' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_res, tb_first_res);
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
