module RefModule (
  input [31:0] d0,
  input [31:0] d1,
  output [31:0] z
);

  assign z = ~(d0 & d1);

endmodule
