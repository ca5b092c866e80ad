"""Reading a folder in VerilogEval's layout."""

import shutil
from pathlib import Path

import pytest

from common.errors import UserError
from eval.benchmarks.layout import load_benchmark


@pytest.fixture
def folder(benchmark_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(benchmark_folder, tmp_path / "bench"))


def test_problems_come_whole_and_in_order(folder: Path) -> None:
    (folder / "Prob002_sum_ifc.txt").write_text("module TopModule (input a);\n")
    (folder / "README.md").write_text("not a problem")
    benchmark = load_benchmark(str(folder))
    assert [p.task_id for p in benchmark.problems] == ["Prob001_register", "Prob002_sum", "Prob003_parity"]
    assert benchmark.problems[0].prompt == "\nImplement Prob001_register as TopModule.\n\n"
    assert [bool(p.interface) for p in benchmark.problems] == [False, True, False]


def test_the_digest_follows_the_contents_not_the_place(folder: Path, benchmark_folder: Path) -> None:
    assert load_benchmark(str(folder)).digest == load_benchmark(str(benchmark_folder)).digest
    (folder / "Prob001_register_prompt.txt").write_text("another wording")
    assert load_benchmark(str(folder)).digest != load_benchmark(str(benchmark_folder)).digest


@pytest.mark.parametrize("part", ["_prompt.txt", "_ref.sv", "_test.sv"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    (folder / f"Prob002_sum{part}").unlink()
    with pytest.raises(UserError, match=f"Prob002_sum has no Prob002_sum{part}"):
        load_benchmark(str(folder))


def test_a_checkout_leads_to_its_datasets(folder: Path) -> None:
    (folder.parent / "checkout").mkdir()
    folder.rename(folder.parent / "checkout" / "dataset_spec-to-rtl")
    with pytest.raises(UserError) as error:
        load_benchmark(str(folder.parent / "checkout"))
    assert "dataset_spec-to-rtl" in error.value.fix


def test_no_folder_and_no_text(folder: Path) -> None:
    with pytest.raises(UserError, match="no such benchmark"):
        load_benchmark(str(folder / "absent"))
    (folder / "Prob002_sum_ref.sv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_benchmark(str(folder))
