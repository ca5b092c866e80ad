module RefModule (
  input [9:0] word,
  output [12:0] data_out
);

  assign data_out = {{3{word[9]}}, word};

endmodule
