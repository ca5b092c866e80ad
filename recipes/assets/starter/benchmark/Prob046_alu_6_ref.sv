module RefModule (
  input [5:0] in2,
  input [5:0] in1,
  input [1:0] func,
  output reg [5:0] res
);

  always @(*)
    case (func)
      2'd0: res = in1 + in2;
      2'd1: res = in1 & in2;
      2'd2: res = in1 - in2;
      default: res = in1 | in2;
    endcase

endmodule
