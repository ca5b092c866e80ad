module RefModule (
  input clk,
  input rstn,
  output reg [2:0] out
);

  always @(posedge clk) begin
    if (!rstn)
      out <= 3'd0;
    else
      out <= {out[1:0], ~out[2]};
  end

endmodule
