module RefModule (
  input clk,
  input rst,
  input we,
  input updown,
  output reg [3:0] num
);

  always @(posedge clk or posedge rst) begin
    if (rst)
      num <= 4'd0;
    else if (we && updown)
      num <= num + 1;
    else if (we)
      num <= num - 1;
  end

endmodule
