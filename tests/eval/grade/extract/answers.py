"""Answers as models write them, drawn from their parts: marks, fences, modules, bodies, prose, in any order."""

import random

HEADER = "module TopModule (\n  input a,\n  output b\n);\n"
PARTS = (
    HEADER + "  assign b = a;\nendmodule",
    HEADER + "  assign b = ~a;\nendmodule",
    "  module TopModule (input a, output b);\n  assign b = a;\n  endmodule",
    "module TopModule(input a, output b); assign b = a; endmodule",
    "module helper (input a, output b);\n  assign b = a;\nendmodule",
    "module tb;\n  TopModule dut();\n  initial $finish;\nendmodule",
    "  assign b = a;\nendmodule",
    "  assign b = ~a;\nendmodule // done",
    "assign b = a;",
    "endmodule",
    "  endmodule : TopModule",
    "`define X 1",
    "typedef logic t;",
    "Here is the module:",
    "module TopModule is simple.",
    "The module TopModule below.",
    "// module TopModule",
    "```verilog",
    "```",
    "```systemverilog title=x",
    "  ```verilog",
    "````",
    "~~~",
    "endmodule```",
    "``` and then",
    "[BEGIN]",
    "[DONE]",
    "  [BEGIN]  ",
    "[BEGIN] module TopModule(input a, output b);",
    "[BEGIN]module TopModule(input a, output b);[DONE]",
    "endmodule [DONE]",
    "endmodule[DONE]",
    "[DONE] and more",
    "say [BEGIN]",
    "<think>hm</think>",
    "",
    "  ",
)
ENDS = ("\n", "\n", "\n", "\n\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028")


def answers(count: int, seed: int = 0) -> list[str]:
    """`count` different answers, each of up to nine parts."""
    pick, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        parts = pick.choices(PARTS, k=pick.randint(1, 9))
        found["".join(part + pick.choice(ENDS) for part in parts)[: None if pick.random() < 0.8 else -1]] = None
    return list(found)
