"""Reading a benchmark, in whichever of the known layouts its files lie.

A layout is a module with FILES (what they are called, for errors), `task_ids(folder)` and `read(folder, task, needs)`.
"""

from common.benchmark import verilog_eval
from common.benchmark.folder import Folder, benchmark_folder
from common.benchmark.problems import Benchmark
from common.errors import UserError

LAYOUTS = (verilog_eval,)
GRADED = ("prompt", "reference", "test")
"""What a problem needs to be graded."""


def read_benchmark(folder: Folder, needs: tuple[str, ...] = GRADED) -> Benchmark:
    """Every problem of a folder; UserError where the folder, its problems or one of a problem's `needs` is missing."""
    for layout in LAYOUTS:
        if tasks := layout.task_ids(folder):
            return Benchmark(folder.name, tuple(layout.read(folder, task, needs) for task in tasks))
    files = "; ".join(layout.FILES for layout in LAYOUTS)
    fix = f"name a folder of such files ({files})"
    if inside := folder.datasets():
        fix = f"name one of its datasets, there or as eval.dataset: {', '.join(inside)}"
    raise UserError(f"no problems ({files}) in this folder", where=str(folder.path), fix=fix)


def load_benchmark(path: str, needs: tuple[str, ...] = GRADED) -> Benchmark:
    """The benchmark in the folder at `path`."""
    return read_benchmark(benchmark_folder(path), needs)
