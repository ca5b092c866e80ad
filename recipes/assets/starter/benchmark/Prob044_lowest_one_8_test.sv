`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg [7:0] d
);

  task draw;
    begin
      d = $urandom;
      if ($urandom % 8 == 0) d = {8{$urandom % 2 == 0}};
      if ($urandom % 2 == 0) d = 1 << ($urandom % 8);
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

  wire [7:0] d;
  wire [2:0] idx_ref, idx_dut;
  wire found_ref, found_dut;
  integer tb_bad_idx = 0, tb_first_idx = 0;
  integer tb_bad_found = 0, tb_first_found = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .d(d));
  RefModule good (.d(d), .idx(idx_ref), .found(found_ref));
  TopModule dut (.d(d), .idx(idx_dut), .found(found_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_idx = (idx_dut ==? idx_ref) === 1'b1;
  wire tb_ok_found = (found_dut ==? found_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_idx && tb_ok_found)) tb_errors = tb_errors + 1;
    if (!tb_ok_idx) begin
      if (tb_bad_idx == 0) tb_first_idx = $time;
      tb_bad_idx = tb_bad_idx + 1;
    end
    if (!tb_ok_found) begin
      if (tb_bad_found == 0) tb_first_found = $time;
      tb_bad_found = tb_bad_found + 1;
    end
  end

  final begin
    if (tb_bad_idx == 0) $display("Hint: Output 'idx' has no mismatches.");
    else $display("Hint: Output 'idx' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_idx, tb_first_idx);
    if (tb_bad_found == 0) $display("Hint: Output 'found' has no mismatches.");
    else $display("Hint: Output 'found' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_found, tb_first_found);
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
