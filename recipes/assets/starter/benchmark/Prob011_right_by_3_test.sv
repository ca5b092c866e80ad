`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [9:0] word
);

  task draw;
    begin
      word = $urandom;
      if ($urandom % 8 == 0) word = {10{$urandom % 2 == 0}};
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

  wire [9:0] word;
  wire [9:0] result_ref, result_dut;
  integer tb_bad_result = 0, tb_first_result = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .word(word));
  RefModule good (.word(word), .result(result_ref));
  TopModule dut (.word(word), .result(result_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_result = (result_dut ==? result_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_result)) tb_errors = tb_errors + 1;
    if (!tb_ok_result) begin
      if (tb_bad_result == 0) tb_first_result = $time;
      tb_bad_result = tb_bad_result + 1;
    end
  end

  final begin
    if (tb_bad_result == 0) $display("Hint: Output 'result' has no mismatches.");
    else $display("Hint: Output 'result' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_result, tb_first_result);
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
