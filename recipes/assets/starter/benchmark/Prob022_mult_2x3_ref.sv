module RefModule (
  input [1:0] p,
  input [2:0] q,
  output [4:0] out
);

  assign out = p * q;

endmodule
