"""What lies outside of a benchmark's checkout is never read for it, nor what is no text file of bearable size."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from common.benchmark import verilog_eval
from common.benchmark.folder import LARGEST, benchmark_folder
from common.benchmark.layouts import read_benchmark
from common.benchmark.problems import Problem
from common.errors import UserError

SECRET = "words of somebody else"
FILE = "Prob001_a_prompt.txt"
DATASET = "dataset_tiny"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of a real repository, with what an attacker would like to read beside it."""
    (tmp_path / "secret").write_text(SECRET)
    place = tmp_path / "checkout"
    verilog_eval.write(place / DATASET, [Problem("Prob001_a", "Build a.\n", "module RefModule; endmodule\n", "//\n")])
    verilog_eval.write(place / "others", [Problem("Prob001_b", "Build b.\n", "module RefModule; endmodule\n", "//\n")])
    shutil.copytree(place / DATASET, tmp_path / "outside")
    subprocess.run(["git", "-C", str(place), "init", "-q"], check=True)
    return place


def read(checkout: Path) -> str:
    return read_benchmark(benchmark_folder(str(checkout), DATASET)).problems[0].prompt


def linked(path: Path, target: str | Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


OUTWARD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file, absolute": (lambda c: linked(c / DATASET / FILE, c.parent / "secret"), "leaves the checkout"),
    "a file, relative": (lambda c: linked(c / DATASET / FILE, "../../secret"), "leaves the checkout"),
    "out and in again by another name": (
        lambda c: (linked(c.parent / "door", c), linked(c / DATASET / FILE, "../../door/../secret")),
        "leaves the checkout",
    ),
    "by way of a link inside": (
        lambda c: (linked(c / "hop", "../secret"), linked(c / DATASET / FILE, "../hop")),
        "leaves the checkout",
    ),
    "a folder on the way": (
        lambda c: (linked(c / "up", ".."), linked(c / DATASET / FILE, "../up/secret")),
        "leaves the checkout",
    ),
    "the dataset's folder": (lambda c: linked(c / DATASET, "../outside"), "leaves the checkout"),
    "an optional part": (lambda c: linked(c / DATASET / "Prob001_a_ifc.txt", "../../secret"), "leaves the checkout"),
    "an unbounded file of the system": (lambda c: linked(c / DATASET / FILE, "/proc/kmsg"), "leaves the checkout"),
    "the process's own memory of its name": (
        lambda c: linked(c / DATASET / FILE, "/proc/self/environ"),
        "leaves the checkout",
    ),
    "an open file": (lambda c: linked(c / DATASET / FILE, "/proc/self/fd/0"), "leaves the checkout|followed|nothing"),
    "a device": (lambda c: linked(c / DATASET / FILE, "/dev/zero"), "leaves the checkout"),
    "the repository's own files": (lambda c: linked(c / DATASET / FILE, "../.git/config"), r"\.git"),
    "the repository as a dataset": (lambda c: linked(c / DATASET, ".git"), r"\.git"),
    "a hidden file": (
        lambda c: ((c / ".env").write_text(SECRET), linked(c / DATASET / FILE, "../.env")),
        r"hidden in the checkout \(\.env\)",
    ),
    "nothing": (lambda c: linked(c / DATASET / FILE, "absent"), "leads to nothing"),
    "itself": (lambda c: linked(c / DATASET / FILE, FILE), "cannot be followed"),
}


@pytest.mark.parametrize("case", OUTWARD)
def test_a_link_that_leaves_is_refused(checkout: Path, case: str) -> None:
    make, said = OUTWARD[case]
    make(checkout)
    with pytest.raises(UserError, match=said) as error:
        read(checkout)
    assert str(checkout) in error.value.where and SECRET not in str(error.value)


def test_a_link_within_the_checkout_is_followed(checkout: Path) -> None:
    linked(checkout / DATASET / FILE, "../others/Prob001_b_prompt.txt")
    assert read(checkout) == "Build b.\n"
    linked(checkout / DATASET, "others")
    assert read(checkout) == "Build b.\n"


def test_a_dataset_named_by_itself_is_of_the_checkout_around_it(checkout: Path) -> None:
    linked(checkout / DATASET / FILE, "../others/Prob001_b_prompt.txt")
    folder = benchmark_folder(str(checkout / DATASET))
    assert folder.checkout == checkout and read_benchmark(folder).problems[0].prompt == "Build b.\n"
    linked(checkout / DATASET, "../outside")
    with pytest.raises(UserError, match="leaves the checkout"):
        read_benchmark(benchmark_folder(str(checkout / DATASET)))


def test_a_folder_beside_other_things_is_its_own_checkout(checkout: Path, tmp_path: Path) -> None:
    """Unpacked in somebody's home: what stands beside it is none of its files."""
    shutil.move(checkout / DATASET, tmp_path / "dataset_x")
    linked(tmp_path / "dataset_x" / FILE, "../secret")
    with pytest.raises(UserError, match="leaves the checkout"):
        read_benchmark(benchmark_folder(str(tmp_path / "dataset_x")))


def test_a_users_own_link_to_a_benchmark_is_followed(checkout: Path, tmp_path: Path) -> None:
    for name in ("mine", "dataset_mine"):
        (tmp_path / name).symlink_to(checkout / DATASET)
        assert read_benchmark(benchmark_folder(str(tmp_path / name))).problems[0].prompt == "Build a.\n"
    (tmp_path / "all").symlink_to(checkout)
    assert read(tmp_path / "all") == "Build a.\n"
    assert benchmark_folder(str(tmp_path / "mine")).checkout == checkout, "where its scripts are"
    linked(checkout / DATASET / FILE, tmp_path / "secret")
    with pytest.raises(UserError, match="leaves the checkout"):
        read_benchmark(benchmark_folder(str(tmp_path / "mine")))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("suffix", ["_prompt.txt", "_ref.sv", "_test.sv", "_ifc.txt"])
def test_what_is_no_regular_file_is_refused_and_waits_for_nobody(checkout: Path, suffix: str) -> None:
    path = checkout / DATASET / f"Prob001_a{suffix}"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular file"):
        read(checkout)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="not a regular file"):
        read(checkout)
    path.rmdir()
    os.mkfifo(checkout / "pipe")
    path.symlink_to("../pipe")
    with pytest.raises(UserError, match="not a regular file"):
        read(checkout)


def test_a_file_beyond_all_measure_is_refused(checkout: Path) -> None:
    with open(checkout / DATASET / FILE, "wb") as file:
        file.truncate(1 << 40)  # a hole: no disk is used, and memory must not be either
    with pytest.raises(UserError, match=f"more than {LARGEST >> 20} MiB"):
        read(checkout)
    (checkout / DATASET / FILE).write_bytes(b"a" * LARGEST)
    assert len(read(checkout)) == LARGEST


def test_who_reads_the_whole_folder_asks_first(checkout: Path) -> None:
    folder = benchmark_folder(str(checkout))
    folder.check_links()
    (checkout / "deep").mkdir()
    (checkout / "deep" / "anything").symlink_to("../../secret")
    with pytest.raises(UserError, match="leaves the checkout"):
        folder.check_links()
