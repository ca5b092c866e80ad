`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [31:0] a
);

  task draw;
    begin
      a = $urandom;
      if ($urandom % 8 == 0) a = {32{$urandom % 2 == 0}};
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

  wire [31:0] a;
  wire [31:0] out_data_ref, out_data_dut;
  integer tb_bad_out_data = 0, tb_first_out_data = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .a(a));
  RefModule good (.a(a), .out_data(out_data_ref));
  TopModule dut (.a(a), .out_data(out_data_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_out_data = (out_data_dut ==? out_data_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_out_data)) tb_errors = tb_errors + 1;
    if (!tb_ok_out_data) begin
      if (tb_bad_out_data == 0) tb_first_out_data = $time;
      tb_bad_out_data = tb_bad_out_data + 1;
    end
  end

  final begin
    if (tb_bad_out_data == 0) $display("Hint: Output 'out_data' has no mismatches.");
    else $display("Hint: Output 'out_data' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_out_data, tb_first_out_data);
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
