module RefModule (
  input [3:0] c,
  input [3:0] a,
  input [3:0] b,
  input [2:0] select,
  input [3:0] d,
  input [3:0] f,
  input [3:0] h,
  input [3:0] g,
  input [3:0] e,
  output reg [3:0] res
);

  always @(*)
    case (select)
      3'd0: res = h;
      3'd1: res = g;
      3'd2: res = f;
      3'd3: res = e;
      3'd4: res = d;
      3'd5: res = c;
      3'd6: res = b;
      default: res = a;
    endcase

endmodule
