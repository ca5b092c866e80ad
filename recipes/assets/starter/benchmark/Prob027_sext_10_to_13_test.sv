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
  wire [12:0] data_out_ref, data_out_dut;
  integer tb_bad_data_out = 0, tb_first_data_out = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .word(word));
  RefModule good (.word(word), .data_out(data_out_ref));
  TopModule dut (.word(word), .data_out(data_out_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_data_out = (data_out_dut ==? data_out_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_data_out)) tb_errors = tb_errors + 1;
    if (!tb_ok_data_out) begin
      if (tb_bad_data_out == 0) tb_first_data_out = $time;
      tb_bad_data_out = tb_bad_data_out + 1;
    end
  end

  final begin
    if (tb_bad_data_out == 0) $display("Hint: Output 'data_out' has no mismatches.");
    else $display("Hint: Output 'data_out' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_data_out, tb_first_data_out);
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
