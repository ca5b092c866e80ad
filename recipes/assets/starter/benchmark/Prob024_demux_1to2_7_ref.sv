module RefModule (
  input s,
  input [6:0] in_data,
  output [6:0] x0,
  output [6:0] x1
);

  assign x0 = s == 1'b0 ? in_data : 7'h7f;
  assign x1 = s == 1'b1 ? in_data : 7'h7f;

endmodule
