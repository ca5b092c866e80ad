module RefModule (
  input [31:0] val,
  output [3:0] out_data
);

  assign out_data = val[15:12];

endmodule
