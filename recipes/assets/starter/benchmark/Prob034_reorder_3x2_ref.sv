module RefModule (
  input [5:0] in,
  output [5:0] o
);

  assign o = {in[2:0], in[5:3]};

endmodule
