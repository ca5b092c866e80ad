"""The official prompts, read out of a checkout, and the plain ones that stay the default."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from common.benchmark.folder import benchmark_folder as at
from common.benchmark.layouts import load_benchmark
from common.benchmark.problems import Problem
from common.errors import UserError
from eval.benchmarks.prompts import digest, plain, wording
from eval.config import EvalConfig
from eval.grade.extract import extract

GENERATOR = '''#!/usr/bin/env python
import absent_library
prompts = {}
prompts['code-complete-iccad2023'] = {
  'system_msg' : """\nOnly complete.\n""",
  'prompt_prefix' : """\n// Implement it.\n"""
}
prompts['spec-to-rtl'] = {
  'system_msg' : """\nYou design.\n""",
  'prompt_prefix' : ""
}
prompt_no_explain_suffix="""\nEnclose it.\n"""
raise SystemExit("never run")
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "sv-generate").write_text(GENERATOR)
    for task in ("spec-to-rtl", "code-complete-iccad2023"):
        (tmp_path / f"dataset_{task}").mkdir()
        for count in (1, 2, 3, 4):
            (scripts / f"verilog-example-prefix_{task}_{count}-shot.txt").write_text(f"{count} for {task}\n\n")
    return tmp_path


def _config(examples: int) -> EvalConfig:
    return EvalConfig(benchmark="b", prompts="official", examples=examples)


PROBLEM = Problem("Prob001_a", "\nBuild it.\n\nmodule TopModule (\n  input a\n);\n\n", "", "")


def test_the_default_is_the_prompt_file_alone(benchmark_folder: Path) -> None:
    word = wording(EvalConfig(benchmark="b"), at(str(benchmark_folder)))
    assert word is plain and word(PROBLEM) == [{"role": "user", "content": PROBLEM.prompt}]


@pytest.mark.parametrize("examples", [0, 1, 2, 3, 4])
def test_questions_follow_their_examples(checkout: Path, examples: int) -> None:
    system, user = wording(_config(examples), at(str(checkout / "dataset_spec-to-rtl")))(PROBLEM)
    assert system == {"role": "system", "content": "\nYou design.\n"}
    before = f"{examples} for spec-to-rtl\n\n" if examples else ""
    body = "\nQuestion:\nBuild it.\n\nmodule TopModule (\n  input a\n);\n\nEnclose it.\n\nAnswer:\n"
    assert user == {"role": "user", "content": before + body}


def test_continuations_comment_the_description(checkout: Path) -> None:
    system, user = wording(_config(1), at(str(checkout / "dataset_code-complete-iccad2023")))(PROBLEM)
    assert system["content"] == "\nOnly complete.\n"
    body = "\n// Implement it.\n// \n// Build it.\n// \n\nmodule TopModule (\n  input a\n);\n"
    assert user["content"] == "1 for code-complete-iccad2023\n\n" + body


def test_what_the_checkout_lacks_is_named(checkout: Path, benchmark_folder: Path) -> None:
    dataset = at(str(checkout / "dataset_spec-to-rtl"))
    (checkout / "scripts" / "verilog-example-prefix_spec-to-rtl_3-shot.txt").unlink()
    with pytest.raises(UserError, match="no file of 3 in-context examples"):
        wording(_config(3), dataset)
    (checkout / "scripts" / "sv-generate").write_text("prompts = {}\n")
    with pytest.raises(UserError, match="no texts for spec-to-rtl"):
        wording(_config(0), dataset)
    (checkout / "scripts" / "sv-generate").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        wording(_config(0), dataset)
    with pytest.raises(UserError, match="this dataset is"):
        wording(_config(0), at(str(benchmark_folder)))
    with pytest.raises(ValidationError, match="prompts: official"):
        EvalConfig(benchmark="b", examples=2)


def test_the_digest_follows_the_words(checkout: Path, benchmark_folder: Path) -> None:
    benchmark = load_benchmark(str(benchmark_folder))
    words = [wording(_config(n), at(str(checkout / "dataset_spec-to-rtl"))) for n in (0, 1, 1)]
    none, one, same = (digest(benchmark, word) for word in words)
    assert none != one == same != digest(benchmark, plain)


@pytest.mark.parametrize("ending", ["[DONE]", "", "\n[DONE]\nDone."])
def test_the_official_marks_are_taken_off(ending: str) -> None:
    code = "module TopModule(input a);\nendmodule"
    for start in ("[BEGIN]\n", "Sure.\n[BEGIN] ", "[BEGIN]\n```verilog\n"):
        found = extract(start + code + ("\n```\n" if "```" in start else "") + ending)
        assert found is not None and found.strip() == code
