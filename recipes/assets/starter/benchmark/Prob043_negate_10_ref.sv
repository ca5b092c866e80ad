module RefModule (
  input [9:0] x,
  output [9:0] data_out
);

  assign data_out = -x;

endmodule
