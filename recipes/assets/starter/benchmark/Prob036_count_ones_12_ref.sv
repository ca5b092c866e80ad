module RefModule (
  input [11:0] data,
  output reg [3:0] cnt
);

  integer i;

  always @(*) begin
    cnt = 4'd0;
    for (i = 0; i < 12; i = i + 1)
      cnt = cnt + data[i];
  end

endmodule
