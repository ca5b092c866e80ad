"""Reading and writing a folder in VerilogEval's layout."""

from collections.abc import Collection
from pathlib import Path

import pytest

from common.benchmark import verilog_eval
from common.benchmark.folder import Folder, benchmark_folder
from common.benchmark.layouts import LAYOUTS, load_benchmark, read_benchmark
from common.benchmark.problems import Benchmark, Problem
from common.errors import UserError

PROBLEMS = tuple(
    Problem(f"Prob00{i}_{name}", f"\nBuild a {name}.\r\n", f"module RefModule; // {name}\n", f"// {name}\n", header)
    for i, (name, header) in enumerate((("register", ""), ("sum", "module TopModule (input a);\n"), ("parität", "")))
)
DIGEST = "3d56007bc96b892422f59cb264e2f51bc874cb76333969e98dfaefb26bb64b60"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    verilog_eval.write(tmp_path / "bench", PROBLEMS)
    return tmp_path / "bench"


def test_what_is_written_is_read_whole_and_in_order(folder: Path) -> None:
    (folder / "README.md").write_text("not a problem")
    (folder / "._Prob000_register_prompt.txt").write_bytes(b"\xff")
    benchmark = load_benchmark(str(folder))
    assert benchmark.problems == PROBLEMS and benchmark.name == "bench"
    assert benchmark.called("Prob001") == benchmark.by_id["Prob001_sum"] == PROBLEMS[1]


def test_the_digest_is_of_the_contents_and_stays_what_it_was(folder: Path) -> None:
    """A literal: records and saved baselines of earlier versions hold it."""
    before = load_benchmark(str(folder)).digest
    assert before == DIGEST
    folder.rename(folder.parent / "elsewhere")
    assert load_benchmark(str(folder.parent / "elsewhere")).digest == before
    (folder.parent / "elsewhere" / "Prob001_sum_test.sv").write_text("another bench")
    assert load_benchmark(str(folder.parent / "elsewhere")).digest != before


@pytest.mark.parametrize("part", ["_prompt.txt", "_ref.sv", "_test.sv"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    (folder / f"Prob001_sum{part}").unlink()
    with pytest.raises(UserError, match=f"Prob001_sum has no Prob001_sum{part}"):
        load_benchmark(str(folder))
    if part != "_prompt.txt":
        assert len(load_benchmark(str(folder), needs=("prompt",)).problems) == 3


def test_a_checkout_leads_to_its_datasets(folder: Path) -> None:
    checkout = folder.parent / "checkout"
    checkout.mkdir()
    folder.rename(checkout / "dataset_spec-to-rtl")
    with pytest.raises(UserError) as error:
        load_benchmark(str(checkout))
    assert "dataset_spec-to-rtl" in error.value.fix
    assert read_benchmark(benchmark_folder(str(checkout), "dataset_spec-to-rtl")).problems == PROBLEMS
    for outside in ("../bench", "/etc"):
        with pytest.raises(UserError, match="not a folder within the checkout"):
            benchmark_folder(str(checkout), outside)


@pytest.mark.parametrize("name", ["_prompt.txt", "Prob\x1b[2J_prompt.txt", "Prob\udcff_ref.sv"])
def test_a_name_that_no_terminal_can_show_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("words")
    with pytest.raises(UserError, match="no name for a problem"):
        load_benchmark(str(folder))


class Nested:
    """Another benchmark's layout, as CONTRIBUTING.md says: a folder for each task, as RTLLM has them."""

    FILES = "TASK/design_description.txt, TASK/verified_TASK.v, TASK/testbench.v"

    @staticmethod
    def task_ids(folder: Folder) -> list[str]:
        return [name for name in folder.names() if folder.text(f"{name}/design_description.txt") is not None]

    @staticmethod
    def read(folder: Folder, task_id: str, needs: Collection[str]) -> Problem:
        names = ("design_description.txt", f"verified_{task_id}.v", "testbench.v")
        return Problem(task_id, *(folder.text(f"{task_id}/{name}") or "" for name in names))


def test_another_layout_is_one_module(folder: Path, tmp_path: Path) -> None:
    def load(path: str) -> Benchmark:
        return read_benchmark(benchmark_folder(path), layouts=(*LAYOUTS, Nested()))

    for task in ("adder", "fifo"):
        (tmp_path / "rtllm" / task).mkdir(parents=True)
        for name in ("design_description.txt", f"verified_{task}.v", "testbench.v"):
            (tmp_path / "rtllm" / task / name).write_text(f"{name} of {task}\n")
    found = load(str(tmp_path / "rtllm"))
    assert [problem.reference for problem in found.problems] == [
        "verified_adder.v of adder\n",
        "verified_fifo.v of fifo\n",
    ]
    assert load(str(folder)).problems == PROBLEMS
    (tmp_path / "rtllm" / "fifo").rename(tmp_path / "elsewhere")
    (tmp_path / "rtllm" / "fifo").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leaves the checkout"):
        load(str(tmp_path / "rtllm"))
    with pytest.raises(UserError, match=r"no problems \(\*_prompt.*TASK/testbench"):
        load(str(tmp_path / "elsewhere"))


def test_no_folder_no_problems_and_no_text(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such benchmark"):
        load_benchmark(str(folder / "absent"))
    with pytest.raises(UserError, match="no such benchmark"):
        load_benchmark(str(folder / "Prob001_sum_ref.sv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no problems \(\*_prompt"):
        load_benchmark(str(tmp_path / "empty"))
    (folder / "Prob001_sum_ref.sv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_benchmark(str(folder))
