module RefModule (
  input clock,
  input [15:0] a,
  input reset,
  output reg [15:0] dout
);

  always @(negedge clock) begin
    if (reset)
      dout <= 16'd0;
    else
      dout <= a;
  end

endmodule
