module RefModule (
  input clk,
  input step,
  input rstn,
  output reg [4:0] num
);

  always @(posedge clk) begin
    if (!rstn)
      num <= 5'd1;
    else if (step && num == 5'd30)
      num <= 5'd1;
    else if (step)
      num <= num + 1;
  end

endmodule
