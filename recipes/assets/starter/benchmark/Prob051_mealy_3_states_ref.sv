module RefModule (
  input clk,
  input clr,
  input si,
  output z
);

  localparam A = 2'd0, B = 2'd1, C = 2'd2;
  reg [1:0] state, next;

  always @(*)
    case (state)
      A: next = si ? B : A;
      B: next = si ? C : B;
      C: next = si ? C : A;
      default: next = A;
    endcase

  always @(posedge clk) begin
    if (clr)
      state <= A;
    else
      state <= next;
  end

  assign z = (state == A) || (state == B) || (state == C && !si);

endmodule
