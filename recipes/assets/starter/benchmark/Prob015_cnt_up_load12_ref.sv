module RefModule (
  input clk,
  input clr,
  input pl,
  input step,
  input [11:0] x,
  output reg [11:0] cnt
);

  always @(posedge clk or posedge clr) begin
    if (clr)
      cnt <= 12'd0;
    else if (pl)
      cnt <= x;
    else if (step)
      cnt <= cnt + 1;
  end

endmodule
