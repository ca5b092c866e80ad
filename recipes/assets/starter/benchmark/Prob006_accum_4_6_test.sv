`timescale 1 ps/1 ps

module stimulus_gen (
  input tb_clk,
  output reg rst,
  output reg start,
  output reg [3:0] a
);

  task draw;
    begin
      start = $urandom;
      a = $urandom;
      if ($urandom % 8 == 0) a = {4{$urandom % 2 == 0}};
    end
  endtask

  initial begin
    rst = 1;
    draw;
    repeat (5) @(tb_clk) #1 draw;
    rst = 0;
    repeat (80) @(tb_clk) #1 begin draw; start = 0; end
    @(posedge tb_clk) #1 rst = 1; @(negedge tb_clk) #1 rst = 0;
    repeat (40) @(tb_clk) #1 begin draw; start = 0; end
    repeat (16) begin repeat (6) @(tb_clk) #1 draw; @(posedge tb_clk) #1 rst = 1; @(negedge tb_clk) #1 rst = 0; end
    repeat (200) @(tb_clk) #1 begin draw; rst = $urandom % 16 == 0; end
    #5 $finish;
  end

endmodule

module tb;

  reg tb_clk = 0;
  always #5 tb_clk = ~tb_clk;

  wire rst;
  wire start;
  wire [3:0] a;
  wire [5:0] total_ref, total_dut;
  integer tb_bad_total = 0, tb_first_total = 0;
  integer tb_samples = 0, tb_errors = 0;

  stimulus_gen stim (.tb_clk(tb_clk), .rst(rst), .start(start), .a(a));
  RefModule good (.clock(tb_clk), .rst(rst), .start(start), .a(a), .total(total_ref));
  TopModule dut (.clock(tb_clk), .rst(rst), .start(start), .a(a), .total(total_dut));

  // An X in the reference matches anything; an X in the design matches only an X.
  wire tb_ok_total = (total_dut ==? total_ref) === 1'b1;

  always @(tb_clk) begin
    #4 tb_samples = tb_samples + 1;
    if (!(tb_ok_total)) tb_errors = tb_errors + 1;
    if (!tb_ok_total) begin
      if (tb_bad_total == 0) tb_first_total = $time;
      tb_bad_total = tb_bad_total + 1;
    end
  end

  final begin
    if (tb_bad_total == 0) $display("Hint: Output 'total' has no mismatches.");
    else $display("Hint: Output 'total' has %0d mismatches. First mismatch occurred at time %0d.",
      tb_bad_total, tb_first_total);
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
