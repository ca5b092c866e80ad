module RefModule (
  input clk,
  input clr,
  input d,
  output z
);

  localparam A = 2'd0, B = 2'd1, C = 2'd2;
  reg [1:0] state, next;

  always @(*)
    case (state)
      A: next = d ? B : C;
      B: next = d ? B : B;
      C: next = d ? C : B;
      default: next = A;
    endcase

  always @(posedge clk or posedge clr) begin
    if (clr)
      state <= A;
    else
      state <= next;
  end

  assign z = (state == A) || (state == C && d);

endmodule
