module RefModule (
  input [15:0] d0,
  input [15:0] d1,
  output y
);

  assign y = d0 > d1;

endmodule
