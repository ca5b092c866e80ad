"""`| head`: a reader that leaves is no error of ours, and nothing is said of it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.conftest import ASSETS, environment

MODEL = str(ASSETS / "tiny-gemma4")


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", MODEL),
        ("check", "quickstart"),
        ("recipes",),
        ("schema",),
        ("--help",),
        ("data", "quickstart", "--show", "40", "--json"),
        ("gate", "summary.json", "--min", "0.1"),
        ("show", "nowhere", "Prob001"),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-1:]),
)
@pytest.mark.parametrize("broken", ["stdout", pytest.param("both", marks=pytest.mark.slow)])
def test_a_reader_that_leaves(command: list[str], tmp_path: Path, arguments: tuple[str, ...], broken: str):
    """The pipe has no reader from the start: the first byte that is written fails, as it may at any later one."""
    score = '{"per_problem": {"a": 1}, "per_problem_samples": {"a": 1}, "unattempted": []}'
    (tmp_path / "summary.json").write_text(score)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        child = subprocess.Popen(
            [*command, *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=writer,
            stderr=writer if broken == "both" else subprocess.PIPE,
        )
    finally:
        os.close(writer)
    _, said = child.communicate(timeout=120)
    assert child.returncode in ((1, 141) if arguments == ("--help",) else (2, 141)), said
    if broken == "stdout":
        assert b"Traceback" not in said and b"BrokenPipe" not in said
        assert child.returncode == 141 or arguments[0] in ("show", "--help")


def test_a_reader_that_leaves_in_the_middle(command: list[str], tmp_path: Path):
    line = f"{' '.join(command)} inspect {MODEL} | head -n 2"
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2 and not done.stderr
