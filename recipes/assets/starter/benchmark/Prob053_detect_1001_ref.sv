module RefModule (
  input clock,
  input areset,
  input s_in,
  output reg out
);

  reg [2:0] history;

  always @(posedge clock or posedge areset) begin
    if (areset) begin
      history <= 3'd0;
      out <= 1'b0;
    end
    else begin
      history <= {history[1:0], s_in};
      out <= {history, s_in} == 4'b1001;
    end
  end

endmodule
