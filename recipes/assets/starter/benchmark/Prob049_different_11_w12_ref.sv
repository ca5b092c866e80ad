module RefModule (
  input [11:0] in_data,
  output out
);

  assign out = in_data != 12'd11;

endmodule
