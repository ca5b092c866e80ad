module RefModule (
  input clk,
  input reset,
  input enable,
  input si,
  output reg [5:0] data_out
);

  always @(posedge clk) begin
    if (reset)
      data_out <= 6'd0;
    else if (enable)
      data_out <= {data_out[4:0], si};
  end

endmodule
