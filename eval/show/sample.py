"""One stored sample, for people: prompt, completion, verdict, first mismatch, and the waves beside the reference's.

`python -m eval.show.sample JOB.json`, JOB = {"run": DIR, "task": NAME, "sample": N or null, "svg": FILE or null,
"config": {...EvalConfig}}. The design runs once more under the same confinement, which may then write
into one empty folder: the dump.
"""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.answer import answer
from common.benchmark.layouts import read_benchmark
from common.benchmark.problems import Problem
from common.errors import UserError
from common.files import write_text
from common.terminal import visible
from eval.benchmarks.checkout import fetched_folder
from eval.config import EvalConfig
from eval.grade import harness, simulate
from eval.grade.extract import extract
from eval.grade.preprocess import admitted
from eval.grade.simulate import Simulator
from eval.journal import Sample
from eval.sandbox import run as sandbox
from eval.sandbox import scratch
from eval.sandbox.run import MIB
from eval.show.wave_chart import chart
from eval.show.waves import Waves, excerpt, read_waves
from eval.stage import RESULTS, SAMPLES, simulator_of

DUMP = "wave.vcd"
_OWN_DUMP = re.compile(r"\$dump(?:file|vars)\b[^;]*;")


def _rows(path: Path) -> list[Sample]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except FileNotFoundError:
        raise UserError("this run keeps no samples", where=str(path), fix="name a folder that eval wrote") from None


def _chosen(results: list[Sample], task: str, sample: int | None) -> Sample:
    """The sample asked for; else the first that failed, else the first."""
    rows = sorted((row for row in results if row["task_id"] == task), key=lambda row: row["sample"])
    wanted = [row for row in rows if row["sample"] == sample] if sample is not None else rows
    if not wanted:
        has = ", ".join(str(row["sample"]) for row in rows) or "none"
        raise UserError(f"this run has no such sample of {task}", where=f"--sample {sample}", fix=f"it has {has}")
    return next((row for row in wanted if not row["passed"]), wanted[0])


def trace(problem: Problem, design: str, simulator: Simulator) -> Waves | None:
    """The signals of the testbench while `design` runs; None where it does not compile or dumps nothing."""
    rig = harness.build(problem)
    if rig is None:
        return None
    dump = f'initial begin $dumpfile("{DUMP}"); $dumpvars(1, {rig.top}); end\n'
    bare = _OWN_DUMP.sub(";", rig.test)
    start = _end_of(bare, rig.top)
    rig = replace(rig, test=bare[:start] + dump + bare[start:])
    with scratch.folder() as folder, scratch.folder() as dumps:
        program = simulate.compile_design(rig, design, folder, simulator)
        if not isinstance(program, bytes):
            return None
        limits = replace(simulator.limits, file_size=16 * MIB, may_fork=False)
        argv = ["vvp", "-n", "/dev/stdin", "-vcd"]
        sandbox.run(argv, folder=dumps, kind=simulator.sandbox, limits=limits, writable=True, stdin=program)
        dumped = Path(dumps) / DUMP
        if dumped.is_symlink() or not dumped.is_file():
            return None
        text = dumped.read_text(encoding="utf-8", errors="replace")
    return read_waves(rig.clean(text), rig.clean(rig.top))


def _end_of(test: str, top: str) -> int:
    """Where the `endmodule` of the module `top` stands."""
    plain = harness.blank(test)
    begun = re.search(rf"\bmodule\s+{top}\b", plain)
    return plain.index("endmodule", begun.start() if begun else 0)


def _signals(waves: Waves) -> list[str]:
    """Clock and inputs first, then each output's reference beside the design's; no bookkeeping of the testbench."""
    outputs = [name.removesuffix("_ref") for name in waves.names if name.endswith("_ref")]
    pairs = [name + side for name in outputs for side in ("_ref", "_dut")]
    bookkeeping = re.compile(r"tb_(?!clk)|stats|wavedrom|strobe|errors|^(record|edges|seen|value|known)$|_copy$")
    inputs = [name for name in waves.names if name not in pairs and not bookkeeping.search(name)]
    return [*dict.fromkeys([*sorted(inputs, key=lambda name: "clk" not in name), *pairs])]


def _waves(problem: Problem, completion: str, config: EvalConfig) -> Waves | None:
    design = extract(completion, problem.interface, config.extract)
    simulator = simulator_of(config)
    text = admitted(design, simulator.sandbox, simulator.limits) if design is not None else None
    if not isinstance(text, str):
        return None
    waves = trace(problem, text, simulator)
    return waves and waves.only(_signals(waves))


def _moment(waves: Waves, row: Sample) -> int:
    """The first mismatch; else early on."""
    first = row.get("first_mismatch")
    return first["time"] if first else waves.rows[min(len(waves.rows), 6) - 1][0] if waves.rows else 0


def _draw(path: Path, waves: Waves | None, row: Sample, title: str) -> None:
    drawn = chart(waves, list(waves.names), _moment(waves, row), title) if waves else ""
    if not drawn:
        raise UserError(
            f"this sample has no waves to draw: {row['category']}",
            where=f"{title}, --svg {path}",
            fix="name one that is simulated, with --sample",
        )
    write_text(path, drawn)


def show(job: dict[str, Any]) -> str:
    config, run = EvalConfig.model_validate(job["config"]), Path(job["run"])
    problem = read_benchmark(fetched_folder(config)).called(job["task"])
    row = _chosen(_rows(run / RESULTS), problem.task_id, job["sample"])
    key = (problem.task_id, row["sample"])
    said = next(s for s in _rows(run / SAMPLES) if (s["task_id"], s["sample"]) == key)
    others = [r for r in _rows(run / RESULTS) if r["task_id"] == problem.task_id]
    parts = [
        f"== {problem.task_id}, sample {row['sample']} ({sum(r['passed'] for r in others)} of {len(others)} passed)",
        f"-- prompt\n{problem.prompt.strip()}",
        f"-- completion\n{said['completion'].strip()}",
        f"-- reference\n{problem.reference.strip()}",
        f"-- verdict\n{row['category']}" + (f": {row['detail']}" if row["detail"] else ""),
    ]
    first = row.get("first_mismatch")
    if first:
        parts.append(f"-- first mismatch\n{', '.join(first['outputs'])} at time {first['time']}")
    waves = _waves(problem, said["completion"], config)
    table = excerpt(waves, list(waves.names), _moment(waves, row)) if waves else ""
    if table:
        parts.append(f"-- waves (> where the design differs from the reference; values from that time on)\n{table}")
    if job.get("svg"):
        _draw(Path(job["svg"]), waves, row, f"{problem.task_id}, sample {row['sample']}: {row['category']}")
    return visible("\n\n".join(parts))


if __name__ == "__main__":
    sys.exit(answer(show))
