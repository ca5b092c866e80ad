module RefModule (
  input clk,
  input arst,
  input s,
  input r,
  output reg q
);

  always @(posedge clk or posedge arst) begin
    if (arst)
      q <= 1'b1;
    else if (r)
      q <= 1'b0;
    else if (s)
      q <= 1'b1;
  end

endmodule
