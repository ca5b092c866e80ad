"""`python -m data.screen.compiles`: says of each design on standard input whether slang compiles it.

A process of its own, for slang can take all memory or crash on what a model or a scraper wrote. A design comes as
eight bytes of length and its text; the answer is one byte, 1 or 0. Modules that are not there are no error: a row may
use what its prompt describes.
"""

import resource
import struct
import sys

import pyslang
from pyslang import ast, syntax

SIZE = struct.Struct("<Q")
MEMORY = 4 << 30


def compiles(design: str) -> bool:
    options = ast.CompilationOptions()
    options.flags = ast.CompilationFlags.IgnoreUnknownModules
    compilation = ast.Compilation(pyslang.Bag([options]))
    compilation.addSyntaxTree(syntax.SyntaxTree.fromText(design, pyslang.SourceManager(), "design.sv", "design.sv"))
    return not any(one.isError() for one in compilation.getAllDiagnostics())


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while head := sys.stdin.buffer.read(SIZE.size):
        design = sys.stdin.buffer.read(SIZE.unpack(head)[0]).decode("utf-8", errors="replace")
        sys.stdout.buffer.write(b"1" if compiles(design) else b"0")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
