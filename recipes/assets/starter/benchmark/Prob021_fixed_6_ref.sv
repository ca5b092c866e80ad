module RefModule (
  output [3:0] res
);

  assign res = 4'd6;

endmodule
