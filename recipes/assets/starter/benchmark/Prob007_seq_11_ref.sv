module RefModule (
  input clk,
  input reset,
  input in,
  output found
);

  reg history;

  always @(posedge clk) begin
    if (reset)
      history <= 1'b0;
    else
      history <= in;
  end

  assign found = {history, in} == 2'b11;

endmodule
