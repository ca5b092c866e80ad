module RefModule (
  input clk,
  input ena,
  input aresetn,
  output tick
);

  reg [5:0] count;

  always @(posedge clk or negedge aresetn) begin
    if (!aresetn)
      count <= 6'd0;
    else if (ena && count == 6'd59)
      count <= 6'd0;
    else if (ena)
      count <= count + 1;
  end

  assign tick = count == 6'd59;

endmodule
