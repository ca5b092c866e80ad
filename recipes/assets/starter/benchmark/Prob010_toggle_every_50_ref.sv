module RefModule (
  input clock,
  input clr_n,
  input active,
  output reg slow_clk
);

  reg [5:0] count;

  always @(posedge clock) begin
    if (!clr_n) begin
      count <= 6'd0;
      slow_clk <= 1'b0;
    end
    else if (active && count == 6'd49) begin
      count <= 6'd0;
      slow_clk <= ~slow_clk;
    end
    else if (active)
      count <= count + 1;
  end

endmodule
