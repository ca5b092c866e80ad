module RefModule (
  input [1:0] opcode,
  input [15:0] in2,
  input [15:0] in1,
  output reg [15:0] z
);

  always @(*)
    case (opcode)
      2'd0: z = in1 & in2;
      2'd1: z = in1 + in2;
      2'd2: z = in1 ^ in2;
      default: z = in1 | in2;
    endcase

endmodule
