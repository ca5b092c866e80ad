module RefModule (
  input clk,
  input dir,
  input clear_n,
  output reg [5:0] q
);

  always @(posedge clk) begin
    if (!clear_n)
      q <= 6'd0;
    else if (!dir)
      q <= q + 1;
    else
      q <= q - 1;
  end

endmodule
