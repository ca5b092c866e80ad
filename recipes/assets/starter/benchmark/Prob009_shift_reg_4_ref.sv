module RefModule (
  input clock,
  input din,
  output reg [3:0] data_out
);

  always @(posedge clock) begin
    data_out <= {data_out[2:0], din};
  end

endmodule
