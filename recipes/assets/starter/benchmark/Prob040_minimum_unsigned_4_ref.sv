module RefModule (
  input [3:0] op1,
  input [3:0] op2,
  output [3:0] q
);

  assign q = op1 < op2 ? op1 : op2;

endmodule
