"""Wrong designs that bend what the testbench compares, in every way of hiding that was found; none may pass.

`python -m benchmarks.grader.forgery DATASET [--problems N] [--jobs N] [--blind]`: each bend plain on each problem,
and each hidden in each way on the first. `--blind` skips admission: the guards alone then have to hold. A problem
whose outputs are always 0 (or unknown) is passed by a constant design rightly and left out.
"""

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Problem
from common.machine import cores
from eval.grade import preprocess, simulate
from eval.grade.extract import without_comments
from eval.grade.guards import CLOCK, instance, ports_of, widths_of
from eval.grade.simulate import Simulator
from eval.grade.verdict import Verdict
from eval.sandbox.run import Limits, find_confinement

_AT_COMPARE = "initial begin #4; forever begin {on} #2 {off} #3; end end"
_SHORT = "wire [{h}:0] z_{i}; assign (supply0, supply1) z_{i} = {x}; "
BENDS = {
    "force": ("{w} {i} = {x};", "", "force", "release {i};"),
    "force late": ("{w} {i} = 0;", "", "force", "release {i};"),
    "tran": ("c = 1;", _SHORT + "{w} t_{i}[{h}:0] ({i}, z_{i});", "tran", ""),
    "tranif1": ("c = 1;", _SHORT + "{w} t_{i}[{h}:0] ({i}, z_{i}, c);", "tranif1", "c = 0;"),
    "tranif0": ("c = 0;", _SHORT + "{w} t_{i}[{h}:0] ({i}, z_{i}, c);", "tranif0", "c = 1;"),
    "rtran": ("", _SHORT + "{w} t_{i}[{h}:0] ({i}, z_{i});", "rtran", ""),
    "rtranif1": ("c = 1;", _SHORT + "{w} t_{i}[{h}:0] ({i}, z_{i}, c);", "rtranif1", "c = 0;"),
    "alias": ("", _SHORT + "{w} {i} = z_{i};", "alias", ""),
    "inout": ("", "bend #({h}) b_{i} ({i});", "inout", ""),
    "strong assign": ("c = 1;", "{w} (supply0, supply1) {i} = c ? {x} : {z};", "assign", "c = 0;"),
    "plain assign": ("", "{w} {i} = 0;", "assign", ""),
    "pullup": ("", "{w} p_{i}[{h}:0] ({i});", "pullup", ""),
    "pulldown": ("", "{w} (supply0) p_{i}[{h}:0] ({i});", "pulldown", ""),
    "buf": ("c = 1;", "{w} (supply0, supply1) b_{i}[{h}:0] ({i}, c);", "buf", "c = 0;"),
    "bufif1": ("c = 1;", "{w} (supply0, supply1) b_{i}[{h}:0] ({i}, 1'bx, c);", "bufif1", "c = 0;"),
    "nmos": ("c = 1;", "{w} n_{i}[{h}:0] ({i}, 1'bx, c);", "nmos", "c = 0;"),
    "cmos": ("c = 1;", "{w} n_{i}[{h}:0] ({i}, 1'b0, c, ~c);", "cmos", "c = 0;"),
    "submodule output": ("", "drive #({h}) d_{i} (.o({i}));", "drive", ""),
    "instance array": ("", "drive #(0) d_{i}[{h}:0] (.o({i}));", "drive", ""),
    "primitive": ("c = 1;", "{w} u_{i}[{h}:0] ({i}, c);", "lift", "c = 0;"),
    "random": ("c = $random;", "", "$random", "c = $urandom;"),
    "random seed": ("s = $random(s);", "integer s = 1;", "$random", "s = $urandom(s);"),
    "urandom_range": ("c = $urandom_range(1, 0);", "", "$urandom_range", ""),
    "finish": ("{w};", "", "$finish", ""),
    "finish at once": ("", "initial {w};", "$finish", ""),
    "stop": ("", "initial #7 {w};", "$stop", ""),
    "fatal": ("", "initial #7 {w};", "$fatal", ""),
    "fopen": ("f = {w}(\"/proc/self/fd/0\", \"r+\");", "integer f;", "$fopen", ""),
    "readmemh": ("", "reg [7:0] m [0:3]; initial {w}(\"/etc/passwd\", m);", "$readmemh", ""),
    "system": ("", "initial {w}(\"true\");", "$system", ""),
    "upward": ("", "initial {w}.clk = 0;", "tb", ""),
    "root": ("", "initial {w}.tb.stats1.errors = 0;", "$root", ""),
    "unit": ("", "initial {w}::errors = 0;", "$unit", ""),
    "defparam": ("", "{w} tb.good1.p = 1;", "defparam", ""),
    "disable": ("{w} tb.settle;", "", "disable", ""),
    "bind": ("", "endmodule\n{w} tb TopModule x();\nmodule other;", "bind", ""),
    "program": ("", "endmodule\n{w} p; initial $finish; endprogram\nmodule other;", "program", ""),
    "config": ("", "endmodule\n{w} c; design tb; endconfig\nmodule other;", "config", ""),
    "DPI": ("", "{w} \"DPI-C\" function int f();", "import", ""),
    "precision": ("", "endmodule\n{w} 1fs/1fs\nmodule other;", "`timescale", ""),
    "include": ("", "{w} \"ref.sv\"", "`include", ""),
}  # fmt: skip
"""Name: what is done at the compare, other items, the word that matters, what is done after it."""
CLOCKS = {
    "clock forced": "initial begin #4; forever begin force {c} = 1'bx; #2 release {c}; #3; end end",
    "clock driven": "reg k = 0; assign (supply0, supply1) {c} = k ? 1'bx : 1'bz; "
    "initial begin #4; forever begin k = 1; #2 k = 0; #3; end end",
    "clock held": "assign (supply0, supply1) {c} = 0;",
    "clock glitched": "reg k = 0; assign (supply0, supply1) {c} = k ? 1'b0 : 1'bz; "
    "always @({c}) begin k = 1; #0 k = 0; end",
    "clock pulled": "pullup p ({c});",
    "clock shorted": "wire k; assign (supply0, supply1) k = 1'bx; tran t ({c}, k);",
    "clock through a submodule": "drive #(0) d (.o({c}));",
}  # fmt: skip
HELPERS = """
module drive #(parameter h = 0) (output [h:0] o); assign (supply0, supply1) o = 0; endmodule
primitive lift (o, a); output o; input a; table 0 : 0; 1 : 1; x : 0; endtable endprimitive
"""
BOTH_WAYS = "module bend #(parameter h = 0) (inout [h:0] o); assign (supply0, supply1) o = {(h + 1){1'bx}}; endmodule\n"
HIDDEN = {
    "plain": "{w}",
    "pasted by a macro": "`define D(x) x\n@`D({a}){b}",
    "glued": "`define G(x, y) x``y\n@`G({a}, {b})",
    "defined": "`define K {w}\n@`K",
    "defined twice": "`define L {w}\n`define K `L\n@`K",
    "with a default argument": "`define K(x={w}) x\n@`K()",
    "behind one tool's macro": "@`ifndef __slang__\n{w}\n`endif",
    "for icarus only": "@`ifdef __ICARUS__\n{w}\n`endif",
    "behind an endif in a string": '@`ifdef NEVER\n"`endif {w} `ifdef NEVER"\n`endif\n{w}',
    "behind an elsif": "@`ifdef NEVER\n`elsif __ICARUS__\n{w}\n`endif",
    "nested deep": "@" + "`ifndef NEVER\n" * 400 + "{w}\n" + "`endif\n" * 400,
    "behind an escaped newline": "`define K {a}\\\n{b}\n@`K",
    "behind a tick and a space": "`define K {w}\n@` K",
    "behind a comment": "{a}/**/{b}",
    "after a comment of a macro": "`define C /\n@`C/* {w}\n*/ {w}",
    "touching a number": "1'b0{w}",
    "after a block": "begin end{w}",
    "escaped": "\\{w} ",
    "behind an attribute": '(* keep = "1" *){w}',
    "with wide letters": "{a}\u200b{b}",
    "with a byte-order mark": "\ufeff{w}",
    "after old keywords": '@`begin_keywords "1364-1995"\n{w}\n`end_keywords',
    "after a line directive": '@`line 1 "tb.sv" 0\n{w}',
    "after a carriage return": "// x\r{w}",
    "after a form feed": "\f{w}",
    "after a NUL": "\0{w}",
    "recursive": "`define R `R {w}\n@`R",
    "included by a macro": '`define I(x) `x "ref.sv"\n@`I(include)\n{w}',
}


def _hide(way: str, text: str, word: str) -> str:
    """The text with each `word` written in another way; what stands before @ goes to its beginning."""
    half = max(len(word) // 2, 1)
    pattern = HIDDEN[way]
    for name, value in (("{w}", word), ("{a}", word[:half]), ("{b}", word[half:])):
        pattern = pattern.replace(name, value)
    head, _, inline = pattern.rpartition("@")
    return head + text.replace("\0word", inline or pattern)


def _ports(problem: Problem) -> tuple[str, dict[str, int], dict[str, int]]:
    """The clock's port, the data inputs and the outputs with their widths, as the testbench connects them."""
    plain = without_comments(problem.test)
    clock, widths, found = (
        CLOCK.search(plain),
        widths_of(plain[plain.rfind("module tb") :]),
        instance(plain, "TopModule", ports_of(without_comments(problem.reference), "RefModule")),
    )
    pins = [(pin.port, pin.net) for pin in (found[1] if found else [])]
    main = next((port for port, net in pins if clock and net == clock.group(1)), "")
    outputs = {port: widths[net][1] for port, net in pins if re.search(r"_dut\b", net)}
    return main, {p: widths[n][1] for p, n in pins if p not in outputs and p != main and n in widths}, outputs


def _module(problem: Problem, items: str, after: str) -> str:
    clock, inputs, outputs = _ports(problem)
    ports = [f"input {clock}"] if clock else []
    ports += [f"input [{width - 1}:0] {name}" for name, width in inputs.items()]
    ports += [f"output [{width - 1}:0] {name}" for name, width in outputs.items()]
    zeros = " ".join(f"assign {name} = 0;" for name in outputs)
    return (
        f"`timescale 1ps/1ps\nmodule TopModule ({', '.join(ports)});\nreg c = 0;\n{zeros}\n{items}\nendmodule\n{after}"
    )


def constant(problem: Problem) -> str:
    """The wrong design without any bend."""
    return _module(problem, "", "")


def _each(text: str, inputs: dict[str, int]) -> str:
    """The text once for each input, where it names one."""
    if "{i}" not in text:
        return text
    parts = []
    for name, width in inputs.items():
        named = text.replace("{i}", name).replace("{h}", str(width - 1))
        parts.append(named.replace("{x}", f"{{{width}{{1'bx}}}}").replace("{z}", f"{{{width}{{1'bz}}}}"))
    return " ".join(parts)


def attacks(problem: Problem, ways: tuple[str, ...] = ("plain",)) -> Iterator[tuple[str, str]]:
    clock, inputs, _ = _ports(problem)
    for name, (on, item, word, off) in BENDS.items():
        at = _AT_COMPARE.replace("{on}", _each(on, inputs)).replace("{off}", _each(off, inputs)) if on or off else ""
        items, after = f"{_each(item, inputs)}\n{at}".replace("{w}", "\0word"), HELPERS
        if name == "inout":
            after += BOTH_WAYS.replace("inout", "\0word")
        for way in ways:
            yield f"{name}, {way}", _hide(way, _module(problem, items, after), word)
    for name, item in CLOCKS.items():
        if clock:
            yield name, _module(problem, item.replace("{c}", clock), HELPERS)


def passed(problem: Problem, simulator: Simulator, ways: tuple[str, ...], blind: bool) -> dict[str, str] | None:
    """Each attack's category; None where a constant passes rightly."""
    golden = simulate.golden(problem, simulator)
    if not golden.passed or simulate.grade(problem, constant(problem), golden, simulator).passed:
        return None
    found = {}
    for name, text in attacks(problem, ways):
        design = text if blind else preprocess.admitted(text, simulator.sandbox, simulator.limits)
        verdict = design if isinstance(design, Verdict) else simulate.grade(problem, design, golden, simulator)
        found[name] = verdict.category
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark")
    parser.add_argument("--problems", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=cores())
    parser.add_argument("--blind", action="store_true", help="Without admission, under the guards alone")
    options = parser.parse_args()
    simulator = Simulator(find_confinement(), Limits(seconds=5.0))
    problems = load_benchmark(options.benchmark).problems[: options.problems]
    judged: Counter[str] = Counter()
    skipped, through = [], []
    work = partial(passed, simulator=simulator, ways=("plain",), blind=options.blind)
    with ProcessPoolExecutor(options.jobs) as pool:
        for problem, found in zip(problems, pool.map(work, problems), strict=True):
            if found is None:
                skipped.append(problem.task_id)
                continue
            judged.update(found.values())
            through += [f"{problem.task_id}: {name}" for name, category in found.items() if category == "passed"]
    print(f"{len(problems) - len(skipped)} problems, {judged.total()} attacks, {len(through)} passed: {dict(judged)}")
    print(f"left out: {skipped}")
    for line in through:
        print(line)


if __name__ == "__main__":
    os.nice(5)
    main()
