`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [15:0] di,
  output reg [3:0] idx
);

  task draw;
    begin
      di = $urandom;
      if ($urandom % 8 == 0) di = {16{$urandom % 2 == 0}};
      idx = $urandom;
      if ($urandom % 8 == 0) idx = {4{$urandom % 2 == 0}};
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

  wire [15:0] di;
  wire [3:0] idx;
  wire flag_ref, flag_dut;
  integer tb_bad_flag = 0, tb_first_flag = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .di(di), .idx(idx));
  RefModule good (.di(di), .idx(idx), .flag(flag_ref));
  TopModule dut (.di(di), .idx(idx), .flag(flag_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_flag = (flag_dut ==? flag_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_flag)) tb_errors = tb_errors + 1;
    if (!tb_ok_flag) begin
      if (tb_bad_flag == 0) tb_first_flag = $time;
      tb_bad_flag = tb_bad_flag + 1;
    end
  end

  final begin
    if (tb_bad_flag == 0) $display("Hint: Output 'flag' has no mismatches.");
    else $display("Hint: Output 'flag' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_flag, tb_first_flag);
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
