module RefModule (
  input [11:0] in_data,
  output flag
);

  assign flag = in_data >= 12'd6;

endmodule
