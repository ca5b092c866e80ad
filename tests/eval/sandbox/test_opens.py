"""Every file that any process opens while designs are judged lies in the sandbox's folders, as the kernel tells it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eval.sandbox.run import tool_folders

ROOT = Path(__file__).resolve().parents[3]
READS = """
import sys
from common.benchmark.layouts import load_benchmark
from eval.grade import simulate
from eval.grade.simulate import Simulator
from eval.grade.worker import admitted
from eval.sandbox.run import Limits, find_confinement
simulator = Simulator(find_confinement(), Limits(seconds=20.0))
problem = load_benchmark(sys.argv[1]).problems[0]
open("/dev/null").close()
golden = simulate.golden(problem, simulator)
print(golden.category, flush=True)
ports = "(input clk, input rst, input [3:0] d, output reg [3:0] q);"
for text in sys.argv[2:]:
    for rule in ("default", "official"):
        found = admitted(text.replace("PORTS", ports), problem.interface, simulator, rule)
        if isinstance(found, str):
            found = simulate.grade(problem, found, golden, simulator)
        print(found.category, found.detail)
"""
DESIGNS = (
    "module TopModule PORTS always @(posedge clk) if (rst) q <= 0; else q <= d; endmodule",
    "module TopModule PORTS wire w = force; prose; endmodule",
    '`include "{canary}"\nmodule TopModule PORTS endmodule',
    '`define I(x) `x "{canary}"\n`I(include)\nmodule TopModule PORTS endmodule',
    '`define P "{canary}"\n`include `P\nmodule TopModule PORTS endmodule',
    'module TopModule PORTS reg [7:0] m [0:3]; initial $readmemh("{canary}", m); endmodule',
    'module TopModule PORTS integer f; initial f = $fopen("{canary}"); endmodule',
    'module TopModule PORTS initial $dumpfile("{canary}"); initial $dumpvars; endmodule',
    "`uselib file={canary}\nmodule TopModule PORTS helper h (); endmodule",
)
_OPENED = re.compile(r'open(?:at)?\([^"]*"([^"]+)"[^=]*= \d+')


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_file_outside_is_opened(benchmark_folder: Path, tmp_path: Path) -> None:
    canary, work, trace = tmp_path / "canary.sv", tmp_path / "work", tmp_path / "trace"
    canary.write_text("a_secret_word")
    work.mkdir()
    designs = [text.replace("{canary}", str(canary)) for text in DESIGNS]
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=open,openat,openat2,execve",
        "-o",
        str(trace),
        sys.executable,
        "-c",
        READS,
    ]
    done = subprocess.run(
        [*command, str(benchmark_folder), *designs],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(work), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[:100]}")
    assert done.stdout.startswith("passed\n") and done.stdout.count("\n") == 1 + 2 * len(DESIGNS)
    assert "a_secret_word" not in done.stdout, done.stderr
    lines = trace.read_text().splitlines()
    main = lines[0].split()[0]
    begun = next(i for i, line in enumerate(lines) if '"/dev/null"' in line and line.split()[0] == main)
    started = {
        line.split()[0] for line in lines if re.search(r'execve\("[^"]*/(iverilog|ivlpp|ivl|vvp|sh|dash)"', line)
    }
    opened = {m[1] for line in lines[begun:] if line.split()[0] in started for m in [_OPENED.search(line)] if m}
    allowed = (
        *tool_folders("iverilog", "vvp"),
        str(work),
        "/etc/ld.so.cache",
        "/dev/null",
        "/dev/urandom",
        "/dev/stdin",
    )
    outside = {path for path in opened if path.startswith("/") and not path.startswith(allowed)}
    assert opened and not outside
    assert not any(str(canary) in line and re.search(r"= \d+$", line) for line in lines)
