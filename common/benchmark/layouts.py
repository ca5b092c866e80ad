"""Reading a benchmark, in whichever of the known layouts its files lie.

A layout is a module as `Layout` says.
"""

from collections.abc import Collection
from typing import Protocol

from common.benchmark import verilog_eval
from common.benchmark.folder import Folder, benchmark_folder
from common.benchmark.problems import Benchmark, Problem
from common.errors import UserError


class Layout(Protocol):
    @property
    def FILES(self) -> str:
        """What its files are called, for errors."""
        ...

    def task_ids(self, folder: Folder) -> list[str]: ...

    def read(self, folder: Folder, task_id: str, needs: Collection[str]) -> Problem: ...


LAYOUTS: tuple[Layout, ...] = (verilog_eval,)
GRADED = ("prompt", "reference", "test")
"""What a problem needs to be graded."""


def read_benchmark(folder: Folder, needs: tuple[str, ...] = GRADED, layouts: tuple[Layout, ...] = LAYOUTS) -> Benchmark:
    """Every problem of a folder in the first of `layouts` that it has; UserError where the folder, its problems or one
    of a problem's `needs` is missing."""
    for layout in layouts:
        if tasks := layout.task_ids(folder):
            return Benchmark(folder.name, tuple(layout.read(folder, task, needs) for task in tasks))
    files = "; ".join(layout.FILES for layout in layouts)
    fix = f"name a folder of such files ({files})"
    if inside := folder.datasets():
        fix = f"name one of its datasets, there or as eval.dataset: {', '.join(inside)}"
    raise UserError(f"no problems ({files}) in this folder", where=str(folder.path), fix=fix)


def load_benchmark(path: str, needs: tuple[str, ...] = GRADED) -> Benchmark:
    """The benchmark in the folder at `path`."""
    return read_benchmark(benchmark_folder(path), needs)
