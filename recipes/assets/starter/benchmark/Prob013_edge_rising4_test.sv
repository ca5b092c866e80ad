`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg areset_n,
  output reg [3:0] sig
);

  task draw;
    begin
      sig = $urandom;
      if ($urandom % 8 == 0) sig = {4{$urandom % 2 == 0}};
    end
  endtask

  initial begin
    areset_n = 0;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    areset_n = 1;
    repeat (80) @(tb_clk) #1 begin draw; end
    @(posedge tb_clk) #1 areset_n = 0; @(negedge tb_clk) #1 areset_n = 1;
    repeat (40) @(tb_clk) #1 begin draw; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 areset_n = 0; @(negedge tb_clk) #1 areset_n = 1; end
    repeat (200) @(tb_clk) #1 begin draw; areset_n = $urandom % 16 != 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire areset_n;
  wire [3:0] sig;
  wire [3:0] out_ref, out_dut;
  integer tb_bad_out = 0, tb_first_out = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .areset_n(areset_n), .sig(sig));
  RefModule good (.clk(tb_clk), .areset_n(areset_n), .sig(sig), .out(out_ref));
  TopModule dut (.clk(tb_clk), .areset_n(areset_n), .sig(sig), .out(out_dut));

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
