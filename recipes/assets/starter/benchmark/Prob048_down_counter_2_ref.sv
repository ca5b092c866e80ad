module RefModule (
  input clk,
  input reset_n,
  output reg [1:0] n
);

  always @(posedge clk) begin
    if (!reset_n)
      n <= 2'd1;
    else
      n <= n - 1;
  end

endmodule
