module RefModule (
  input a,
  input b,
  input c,
  output res
);

  assign res = (~a & ~b & ~c) | (~a & b & c) | (a & ~b & ~c) | (a & ~b & c);

endmodule
