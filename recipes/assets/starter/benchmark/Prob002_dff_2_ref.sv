module RefModule (
  input clk,
  input rst,
  input step,
  input [1:0] din,
  output reg [1:0] q_out
);

  always @(posedge clk or posedge rst) begin
    if (rst)
      q_out <= 2'd1;
    else if (!step)
      q_out <= din;
  end

endmodule
