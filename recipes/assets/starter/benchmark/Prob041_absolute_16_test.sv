`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [15:0] a,
  output reg [15:0] b
);

  task draw;
    begin
      a = $urandom;
      if ($urandom % 8 == 0) a = {16{$urandom % 2 == 0}};
      b = $urandom;
      if ($urandom % 8 == 0) b = {16{$urandom % 2 == 0}};
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

  wire [15:0] a;
  wire [15:0] b;
  wire [15:0] f_ref, f_dut;
  integer tb_bad_f = 0, tb_first_f = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .a(a), .b(b));
  RefModule good (.a(a), .b(b), .f(f_ref));
  TopModule dut (.a(a), .b(b), .f(f_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_f = (f_dut ==? f_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_f)) tb_errors = tb_errors + 1;
    if (!tb_ok_f) begin
      if (tb_bad_f == 0) tb_first_f = $time;
      tb_bad_f = tb_bad_f + 1;
    end
  end

  final begin
    if (tb_bad_f == 0) $display("Hint: Output 'f' has no mismatches.");
    else $display("Hint: Output 'f' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_f, tb_first_f);
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
