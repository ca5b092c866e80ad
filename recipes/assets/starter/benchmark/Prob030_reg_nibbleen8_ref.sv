module RefModule (
  input clk,
  input resetn,
  input [1:0] we_lane,
  input [7:0] val,
  output reg [7:0] q_out
);

  always @(posedge clk) begin
    if (!resetn)
      q_out <= 8'd0;
    else begin
      if (we_lane[0]) q_out[3:0] <= val[3:0];
      if (we_lane[1]) q_out[7:4] <= val[7:4];
    end
  end

endmodule
