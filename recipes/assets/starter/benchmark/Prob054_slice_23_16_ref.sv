module RefModule (
  input [31:0] x,
  output [7:0] q
);

  assign q = x[23:16];

endmodule
