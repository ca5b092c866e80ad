`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [31:0] val,
  output reg [2:0] n
);

  task draw;
    begin
      val = $urandom;
      if ($urandom % 8 == 0) val = {32{$urandom % 2 == 0}};
      n = $urandom;
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

  wire [31:0] val;
  wire [2:0] n;
  wire [31:0] f_ref, f_dut;
  integer tb_bad_f = 0, tb_first_f = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .val(val), .n(n));
  RefModule good (.val(val), .n(n), .f(f_ref));
  TopModule dut (.val(val), .n(n), .f(f_dut));

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
