module RefModule (
  input clock,
  input rst,
  input start,
  input [3:0] a,
  output reg [5:0] total
);

  always @(posedge clock or posedge rst) begin
    if (rst)
      total <= 6'd0;
    else if (start)
      total <= 6'd0;
    else
      total <= total + a;
  end

endmodule
