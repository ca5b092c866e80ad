module RefModule (
  input clk,
  input reset_n,
  output reg [6:0] value
);

  always @(posedge clk or negedge reset_n) begin
    if (!reset_n)
      value <= 7'd0;
    else
      value <= {value[5:0], ~value[6]};
  end

endmodule
