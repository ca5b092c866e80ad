module RefModule (
  input clk,
  input arst_n,
  input [7:0] in,
  output reg [7:0] found
);

  reg [7:0] prev;

  always @(posedge clk or negedge arst_n) begin
    if (!arst_n) begin
      prev <= 8'd0;
      found <= 8'd0;
    end
    else begin
      prev <= in;
      found <= in & ~prev;
    end
  end

endmodule
