module RefModule (
  input [7:0] din,
  output [7:0] z
);

  assign z = din + 8'd8;

endmodule
