`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg step,
  output reg rstn
);

  task draw;
    begin
      step = $urandom;
    end
  endtask

  initial begin
    rstn = 0;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    rstn = 1;
    repeat (132) @(tb_clk) #1 begin draw; step = 1; end
    @(posedge tb_clk) #1 rstn = 0; @(negedge tb_clk) #1 rstn = 1;
    repeat (66) @(tb_clk) #1 begin draw; step = 1; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 rstn = 0; @(negedge tb_clk) #1 rstn = 1; end
    repeat (200) @(tb_clk) #1 begin draw; rstn = $urandom % 16 != 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire step;
  wire rstn;
  wire [4:0] num_ref, num_dut;
  integer tb_bad_num = 0, tb_first_num = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .step(step), .rstn(rstn));
  RefModule good (.clk(tb_clk), .step(step), .rstn(rstn), .num(num_ref));
  TopModule dut (.clk(tb_clk), .step(step), .rstn(rstn), .num(num_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_num = (num_dut ==? num_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_num)) tb_errors = tb_errors + 1;
    if (!tb_ok_num) begin
      if (tb_bad_num == 0) tb_first_num = $time;
      tb_bad_num = tb_bad_num + 1;
    end
  end

  final begin
    if (tb_bad_num == 0) $display("Hint: Output 'num' has no mismatches.");
    else $display("Hint: Output 'num' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_num, tb_first_num);
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
