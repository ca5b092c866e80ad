`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [1:0] p,
  output reg [2:0] q
);

  task draw;
    begin
      p = $urandom;
      q = $urandom;
    end
  endtask

  initial begin
    draw;
    repeat (32) @(tb_clk) #1 {p, q} = {p, q} + 1;
    repeat (200) @(tb_clk) #1 draw;
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire [1:0] p;
  wire [2:0] q;
  wire [4:0] out_ref, out_dut;
  integer tb_bad_out = 0, tb_first_out = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .p(p), .q(q));
  RefModule good (.p(p), .q(q), .out(out_ref));
  TopModule dut (.p(p), .q(q), .out(out_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_out = (out_dut ==? out_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_out)) tb_errors = tb_errors + 1;
    if (!tb_ok_out) begin
      if (tb_bad_out == 0) tb_first_out = $time;
      tb_bad_out = tb_bad_out + 1;
    end
  end

  final begin
    if (tb_bad_out == 0) $display("Hint: Output 'out' has no mismatches.");
    else $display("Hint: Output 'out' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_out, tb_first_out);
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
