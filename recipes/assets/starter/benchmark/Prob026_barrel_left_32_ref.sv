module RefModule (
  input [31:0] val,
  input [2:0] n,
  output [31:0] f
);

  assign f = val << n;

endmodule
