module RefModule (
  input [9:0] word,
  output [9:0] result
);

  assign result = word >> 3;

endmodule
