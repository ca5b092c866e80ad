`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg rst,
  output reg step,
  output reg [1:0] din
);

  task draw;
    begin
      step = $urandom;
      din = $urandom;
    end
  endtask

  initial begin
    rst = 1;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    rst = 0;
    repeat (80) @(tb_clk) #1 begin draw; step = 0; end
    @(posedge tb_clk) #1 rst = 1; @(negedge tb_clk) #1 rst = 0;
    repeat (40) @(tb_clk) #1 begin draw; step = 0; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 rst = 1; @(negedge tb_clk) #1 rst = 0; end
    repeat (200) @(tb_clk) #1 begin draw; rst = $urandom % 16 == 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire rst;
  wire step;
  wire [1:0] din;
  wire [1:0] q_out_ref, q_out_dut;
  integer tb_bad_q_out = 0, tb_first_q_out = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .rst(rst), .step(step), .din(din));
  RefModule good (.clk(tb_clk), .rst(rst), .step(step), .din(din), .q_out(q_out_ref));
  TopModule dut (.clk(tb_clk), .rst(rst), .step(step), .din(din), .q_out(q_out_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_q_out = (q_out_dut ==? q_out_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_q_out)) tb_errors = tb_errors + 1;
    if (!tb_ok_q_out) begin
      if (tb_bad_q_out == 0) tb_first_q_out = $time;
      tb_bad_q_out = tb_bad_q_out + 1;
    end
  end

  final begin
    if (tb_bad_q_out == 0) $display("Hint: Output 'q_out' has no mismatches.");
    else $display("Hint: Output 'q_out' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_q_out, tb_first_q_out);
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
