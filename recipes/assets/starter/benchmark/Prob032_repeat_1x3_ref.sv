module RefModule (
  input val,
  output [2:0] o
);

  assign o = {3{val}};

endmodule
