"""A benchmark in VerilogEval v2's layout: ProbNNN_name_prompt.txt, _ref.sv, _test.sv, and _ifc.txt for code completion.

A checkout of NVlabs/verilog-eval, one of its dataset folders, or any folder with files named so.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.errors import UserError

PROMPT, REFERENCE, TEST, INTERFACE = "_prompt.txt", "_ref.sv", "_test.sv", "_ifc.txt"
DATASETS = "dataset_*"


@dataclass(frozen=True)
class Problem:
    """One task: its prompt, the reference design, the testbench; `interface` is the header a completion continues."""

    task_id: str
    prompt: str
    reference: str
    test: str
    interface: str = ""

    @cached_property
    def digest(self) -> str:
        total = hashlib.sha256()
        for part in (self.task_id, self.prompt, self.reference, self.test, self.interface):
            total.update(f"{len(part)}\0{part}".encode())
        return total.hexdigest()


@dataclass(frozen=True)
class Benchmark:
    """Problems in order of their task id."""

    name: str
    problems: tuple[Problem, ...]

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256("".join(p.digest for p in self.problems).encode()).hexdigest()

    @cached_property
    def by_id(self) -> dict[str, Problem]:
        return {p.task_id: p for p in self.problems}


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text ({error.reason})", where=str(path), fix="restore the file") from None


def _problem(folder: Path, task_id: str) -> Problem:
    for suffix in (PROMPT, REFERENCE, TEST):
        if not (folder / (task_id + suffix)).is_file():
            raise UserError(
                f"problem {task_id} has no {task_id}{suffix}",
                where=str(folder),
                fix="restore the missing file, or remove the problem's other files",
            )
    interface = folder / (task_id + INTERFACE)
    return Problem(
        task_id,
        _read(folder / (task_id + PROMPT)),
        _read(folder / (task_id + REFERENCE)),
        _read(folder / (task_id + TEST)),
        _read(interface) if interface.is_file() else "",
    )


def load_benchmark(path: str) -> Benchmark:
    """Read every problem of a folder; raises UserError when the folder or a problem's part is missing."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError("no such benchmark folder", where=path, fix="name a folder of ProbNNN_*_prompt.txt files")
    names = {
        file.name.removesuffix(suffix)
        for suffix in (PROMPT, REFERENCE, TEST)
        for file in folder.iterdir()
        if file.name.endswith(suffix)
    }
    if not names:
        inside = sorted(p.name for p in folder.glob(DATASETS) if p.is_dir())
        fix = "name a folder in VerilogEval v2's layout"
        if inside:
            fix = f"name one of its datasets, there or as eval.dataset: {', '.join(inside)}"
        raise UserError("no problems (*_prompt.txt, *_ref.sv, *_test.sv) in this folder", where=path, fix=fix)
    return Benchmark(folder.resolve().name, tuple(_problem(folder, name) for name in sorted(names)))
