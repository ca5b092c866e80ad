`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg val
);

  task draw;
    begin
      val = $urandom;
    end
  endtask

  initial begin
    draw;
    repeat (2) @(tb_clk) #1 {val} = {val} + 1;
    repeat (200) @(tb_clk) #1 draw;
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire val;
  wire [2:0] o_ref, o_dut;
  integer tb_bad_o = 0, tb_first_o = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .val(val));
  RefModule good (.val(val), .o(o_ref));
  TopModule dut (.val(val), .o(o_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_o = (o_dut ==? o_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_o)) tb_errors = tb_errors + 1;
    if (!tb_ok_o) begin
      if (tb_bad_o == 0) tb_first_o = $time;
      tb_bad_o = tb_bad_o + 1;
    end
  end

  final begin
    if (tb_bad_o == 0) $display("Hint: Output 'o' has no mismatches.");
    else $display("Hint: Output 'o' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_o, tb_first_o);
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
