"""Port names to choose from, by role, and the kinds of reset."""

RESETS = ("sync_high", "sync_low", "async_high", "async_low")

NAMES = {
    "clk": ("clk", "clk", "clk", "clk", "clock"),
    "data": ("d", "din", "data", "in", "data_in", "x", "di", "value", "in_data", "word", "val", "a"),
    "out": ("q", "out", "dout", "data_out", "y", "result", "z", "o", "out_data", "f", "res"),
    "stored": ("q", "out", "dout", "data_out", "q_out", "reg_out", "stored", "state_out"),
    "bit": ("y", "out", "f", "z", "o", "res", "result", "flag", "out1"),
    "enable": ("en", "ena", "enable", "ce", "we", "go", "run", "step", "active"),
    "count": ("q", "count", "cnt", "out", "counter", "value", "num", "n"),
    "load": ("load", "ld", "set", "pl", "wr", "preset"),
    "serial": ("sin", "serial_in", "si", "in", "din", "s_in", "d", "bit_in"),
    "serial_out": ("sout", "serial_out", "so", "out", "q", "s_out", "bit_out"),
    "select": ("sel", "s", "select", "choice", "idx", "pick"),
    "address": ("addr", "sel", "idx", "code", "in", "n"),
    "amount": ("amt", "shamt", "n", "amount", "k", "count"),
    "pulse": ("pulse", "tick", "det", "out", "strobe", "hit", "found"),
    "mode": ("mode", "sub", "op", "m", "dir", "sel"),
    "direction": ("up", "dir", "updown", "up_down", "mode"),
    "valid": ("valid", "any", "vld", "found", "ok"),
    "signal": ("in", "sig", "x", "a", "d", "btn", "level", "din"),
    "carry_in": ("cin", "ci", "carry_in", "c_in"),
    "carry": ("cout", "co", "carry", "carry_out", "c_out"),
    "overflow": ("overflow", "ovf", "v", "oflow"),
    "sum": ("sum", "s", "out", "result", "y", "total"),
    "opcode": ("op", "opcode", "sel", "func", "alu_op"),
}
PAIRS = (
    ("a", "b"),
    ("x", "y"),
    ("in1", "in2"),
    ("op1", "op2"),
    ("p", "q"),
    ("left", "right"),
    ("d0", "d1"),
    ("u", "v"),
)
SERIES = (
    "abcdefgh",
    "in0 in1 in2 in3 in4 in5 in6 in7",
    "d0 d1 d2 d3 d4 d5 d6 d7",
    "x0 x1 x2 x3 x4 x5 x6 x7",
    "pqrstuvw",
)
RESET_NAMES = {
    "sync_high": ("reset", "rst", "clr", "clear", "sclr", "init", "sreset"),
    "sync_low": ("reset_n", "rst_n", "resetn", "rstn", "clr_n", "clear_n"),
    "async_high": ("areset", "arst", "reset", "rst", "aclr", "clr"),
    "async_low": ("areset_n", "arst_n", "rst_n", "reset_n", "aresetn", "clr_n"),
}
