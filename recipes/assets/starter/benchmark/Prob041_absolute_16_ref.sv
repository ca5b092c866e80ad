module RefModule (
  input [15:0] a,
  input [15:0] b,
  output [15:0] f
);

  assign f = a > b ? a - b : b - a;

endmodule
