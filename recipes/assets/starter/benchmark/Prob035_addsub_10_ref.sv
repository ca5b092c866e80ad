module RefModule (
  input op,
  input [9:0] a,
  input [9:0] b,
  output [9:0] y
);

  assign y = op ? b + a : b - a;

endmodule
