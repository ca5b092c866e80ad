module RefModule (
  input clock,
  input rstn,
  output reg [3:0] out
);

  always @(posedge clock) begin
    if (!rstn)
      out <= 4'd8;
    else if (out == 4'd1)
      out <= 4'd8;
    else
      out <= out - 1;
  end

endmodule
