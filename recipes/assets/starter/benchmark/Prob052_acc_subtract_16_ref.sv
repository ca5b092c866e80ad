module RefModule (
  input clk,
  input arst_n,
  input step,
  input [15:0] word,
  output reg [15:0] sum
);

  always @(posedge clk or negedge arst_n) begin
    if (!arst_n)
      sum <= 16'd0;
    else if (step)
      sum <= sum - word;
  end

endmodule
