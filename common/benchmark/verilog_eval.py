"""VerilogEval v2's layout: ProbNNN_name_prompt.txt, _ref.sv, _test.sv, and _ifc.txt for code completion.

A `dataset_*` folder of a checkout of NVlabs/verilog-eval, or any folder with files named so.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from common.benchmark.folder import Folder
from common.benchmark.problems import Problem
from common.errors import UserError
from common.files import new_folder

FILES = "*_prompt.txt, *_ref.sv, *_test.sv"
SUFFIXES = {"prompt": "_prompt.txt", "reference": "_ref.sv", "test": "_test.sv", "interface": "_ifc.txt"}
"""What each part's file is called after the task id."""


def task_ids(folder: Folder) -> list[str]:
    """The tasks that have a file here; none: another layout. UserError for a name that no terminal can show."""
    required = [suffix for part, suffix in SUFFIXES.items() if part != "interface"]
    found = {name.removesuffix(suffix) for name in folder.names() for suffix in required if name.endswith(suffix)}
    for task in found:
        if not task or not task.isprintable():
            raise UserError(f"no name for a problem: {task!r}", where=str(folder.path), fix="rename its files")
    return sorted(found)


def read(folder: Folder, task_id: str, needs: Collection[str]) -> Problem:
    """The problem, its absent parts empty; UserError where one of `needs` is absent."""
    parts = {part: folder.text(task_id + suffix) for part, suffix in SUFFIXES.items()}
    for part in needs:
        if parts[part] is None:
            raise UserError(
                f"problem {task_id} has no {task_id}{SUFFIXES[part]}",
                where=str(folder.path),
                fix="restore the missing file, or remove the problem's other files",
            )
    return Problem(task_id, **{part: text or "" for part, text in parts.items()})


def write(folder: Path, problems: Iterable[Problem]) -> None:
    """Write problems into a new or empty folder, which is there whole or not at all."""
    with new_folder(folder) as out:
        for problem in problems:
            for part, suffix in SUFFIXES.items():
                text = getattr(problem, part)
                if text or part != "interface":
                    (out / (problem.task_id + suffix)).write_bytes(text.encode())
