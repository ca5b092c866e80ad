module RefModule (
  input [7:0] word,
  output [7:0] res
);

  assign res = word ^ (word >> 1);

endmodule
