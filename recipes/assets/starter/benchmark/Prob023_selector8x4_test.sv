`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [3:0] c,
  output reg [3:0] a,
  output reg [3:0] b,
  output reg [2:0] select,
  output reg [3:0] d,
  output reg [3:0] f,
  output reg [3:0] h,
  output reg [3:0] g,
  output reg [3:0] e
);

  task draw;
    begin
      c = $urandom;
      if ($urandom % 8 == 0) c = {4{$urandom % 2 == 0}};
      a = $urandom;
      if ($urandom % 8 == 0) a = {4{$urandom % 2 == 0}};
      b = $urandom;
      if ($urandom % 8 == 0) b = {4{$urandom % 2 == 0}};
      select = $urandom;
      d = $urandom;
      if ($urandom % 8 == 0) d = {4{$urandom % 2 == 0}};
      f = $urandom;
      if ($urandom % 8 == 0) f = {4{$urandom % 2 == 0}};
      h = $urandom;
      if ($urandom % 8 == 0) h = {4{$urandom % 2 == 0}};
      g = $urandom;
      if ($urandom % 8 == 0) g = {4{$urandom % 2 == 0}};
      e = $urandom;
      if ($urandom % 8 == 0) e = {4{$urandom % 2 == 0}};
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

  wire [3:0] c;
  wire [3:0] a;
  wire [3:0] b;
  wire [2:0] select;
  wire [3:0] d;
  wire [3:0] f;
  wire [3:0] h;
  wire [3:0] g;
  wire [3:0] e;
  wire [3:0] res_ref, res_dut;
  integer tb_bad_res = 0, tb_first_res = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .c(c), .a(a), .b(b), .select(select), .d(d), .f(f), .h(h), .g(g), .e(e));
  RefModule good (.c(c), .a(a), .b(b), .select(select), .d(d), .f(f), .h(h), .g(g), .e(e), .res(res_ref));
  TopModule dut (.c(c), .a(a), .b(b), .select(select), .d(d), .f(f), .h(h), .g(g), .e(e), .res(res_dut));

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
