module RefModule (
  input [7:0] d,
  output reg [2:0] idx,
  output found
);

  always @(*) begin
    if (d[0]) idx = 3'd0;
    else if (d[1]) idx = 3'd1;
    else if (d[2]) idx = 3'd2;
    else if (d[3]) idx = 3'd3;
    else if (d[4]) idx = 3'd4;
    else if (d[5]) idx = 3'd5;
    else if (d[6]) idx = 3'd6;
    else if (d[7]) idx = 3'd7;
    else idx = 3'd0;
  end

  assign found = |d;

endmodule
