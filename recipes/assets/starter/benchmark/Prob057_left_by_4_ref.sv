module RefModule (
  input [31:0] a,
  output [31:0] out_data
);

  assign out_data = a << 4;

endmodule
