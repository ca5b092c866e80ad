`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg op,
  output reg [9:0] a,
  output reg [9:0] b
);

  task draw;
    begin
      op = $urandom;
      a = $urandom;
      if ($urandom % 8 == 0) a = {10{$urandom % 2 == 0}};
      b = $urandom;
      if ($urandom % 8 == 0) b = {10{$urandom % 2 == 0}};
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

  wire op;
  wire [9:0] a;
  wire [9:0] b;
  wire [9:0] y_ref, y_dut;
  integer tb_bad_y = 0, tb_first_y = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .op(op), .a(a), .b(b));
  RefModule good (.op(op), .a(a), .b(b), .y(y_ref));
  TopModule dut (.op(op), .a(a), .b(b), .y(y_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_y = (y_dut ==? y_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_y)) tb_errors = tb_errors + 1;
    if (!tb_ok_y) begin
      if (tb_bad_y == 0) tb_first_y = $time;
      tb_bad_y = tb_bad_y + 1;
    end
  end

  final begin
    if (tb_bad_y == 0) $display("Hint: Output 'y' has no mismatches.");
    else $display("Hint: Output 'y' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_y, tb_first_y);
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
