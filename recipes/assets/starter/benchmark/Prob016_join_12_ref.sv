module RefModule (
  input [3:0] d0,
  input [7:0] d1,
  output [11:0] z
);

  assign z = {d0, d1};

endmodule
