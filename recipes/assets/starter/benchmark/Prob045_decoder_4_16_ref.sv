module RefModule (
  input ce,
  input [3:0] code,
  output [15:0] q
);

  assign q = ce ? ~(16'd1 << code) : 16'hffff;

endmodule
