module RefModule (
  input [15:0] di,
  input [3:0] idx,
  output flag
);

  assign flag = ~di[15 - idx];

endmodule
