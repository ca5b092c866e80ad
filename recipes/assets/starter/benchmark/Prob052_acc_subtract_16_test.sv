`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg arst_n,
  output reg step,
  output reg [15:0] word
);

  task draw;
    begin
      step = $urandom;
      word = $urandom;
      if ($urandom % 8 == 0) word = {16{$urandom % 2 == 0}};
    end
  endtask

  initial begin
    arst_n = 0;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    arst_n = 1;
    repeat (80) @(tb_clk) #1 begin draw; step = 1; end
    @(posedge tb_clk) #1 arst_n = 0; @(negedge tb_clk) #1 arst_n = 1;
    repeat (40) @(tb_clk) #1 begin draw; step = 1; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 arst_n = 0; @(negedge tb_clk) #1 arst_n = 1; end
    repeat (200) @(tb_clk) #1 begin draw; arst_n = $urandom % 16 != 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire arst_n;
  wire step;
  wire [15:0] word;
  wire [15:0] sum_ref, sum_dut;
  integer tb_bad_sum = 0, tb_first_sum = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .arst_n(arst_n), .step(step), .word(word));
  RefModule good (.clk(tb_clk), .arst_n(arst_n), .step(step), .word(word), .sum(sum_ref));
  TopModule dut (.clk(tb_clk), .arst_n(arst_n), .step(step), .word(word), .sum(sum_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_sum = (sum_dut ==? sum_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_sum)) tb_errors = tb_errors + 1;
    if (!tb_ok_sum) begin
      if (tb_bad_sum == 0) tb_first_sum = $time;
      tb_bad_sum = tb_bad_sum + 1;
    end
  end

  final begin
    if (tb_bad_sum == 0) $display("Hint: Output 'sum' has no mismatches.");
    else $display("Hint: Output 'sum' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_sum, tb_first_sum);
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
