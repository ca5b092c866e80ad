module RefModule (
  input clk,
  input clr,
  input x,
  output reg reg_out
);

  reg s1, s2, s3;

  always @(posedge clk) begin
    if (clr) begin
      s1 <= 1'b0;
      s2 <= 1'b0;
      s3 <= 1'b0;
      reg_out <= 1'b0;
    end
    else begin
      s1 <= x;
      s2 <= s1;
      s3 <= s2;
      reg_out <= s3;
    end
  end

endmodule
