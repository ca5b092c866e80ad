module RefModule (
  input [9:0] d,
  output res
);

  assign res = ~^d;

endmodule
