module RefModule (
  input [31:0] u,
  input [31:0] v,
  output [31:0] y
);

  assign y = u + v;

endmodule
