module RefModule (
  input a,
  input d,
  input c,
  input e,
  input b,
  output y
);

  assign y = (a & b & c) | (d & e);

endmodule
