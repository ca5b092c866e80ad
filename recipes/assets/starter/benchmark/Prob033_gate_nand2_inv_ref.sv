module RefModule (
  input p,
  input q,
  output out1
);

  assign out1 = ~(p & ~q);

endmodule
