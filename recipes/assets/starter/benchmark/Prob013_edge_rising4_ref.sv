module RefModule (
  input clk,
  input areset_n,
  input [3:0] sig,
  output reg [3:0] out
);

  reg [3:0] prev;

  always @(posedge clk or negedge areset_n) begin
    if (!areset_n) begin
      prev <= 4'd0;
      out <= 4'd0;
    end
    else begin
      prev <= sig;
      out <= sig & ~prev;
    end
  end

endmodule
