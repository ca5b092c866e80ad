module RefModule (
  input [1:0] d,
  output z
);

  assign z = ^d;

endmodule
