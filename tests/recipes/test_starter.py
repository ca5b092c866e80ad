"""The starter's tasks under real Icarus: references pass, mutants fail, nothing held out leaks into training."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from recipes.starter import Problem, corpus, echoes, held_out, rows, train_problems, write_benchmark
from recipes.starter.__main__ import main
from recipes.starter.problem import normalised
from recipes.starter.split import FAMILIES, held_out_params, training_params

ASSETS = Path(__file__).parents[2] / "recipes" / "assets" / "starter"
SHIPPED_ROWS = 3200
RESPONSE = re.compile(
    r"<think>\n(.+)\n</think>\n<answer>\n```verilog\n(module TopModule.+endmodule\n)```\n</answer>", re.DOTALL
)

Mismatches = Callable[..., int | None]


def in_pool(job: Callable[[tuple[int, Problem]], None], problems: list[Problem]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(job, enumerate(problems)))


def shipped_rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in (ASSETS / "train.jsonl").read_text().splitlines()]


def modules(text: str) -> list[str]:
    return [normalised(code) for code in re.findall(r"^module .+?^endmodule$", text, re.DOTALL | re.MULTILINE)]


def test_every_reference_passes_and_a_mutant_fails(
    mismatches: Mismatches, mutants: Callable[[str], Iterator[str]]
) -> None:
    def check(item: tuple[int, Problem]) -> None:
        number, problem = item
        bench, ref, own = problem.testbench(), problem.code("RefModule"), problem.code("TopModule")
        assert mismatches(f"own{number}", bench, ref, own) == 0, problem
        counts = (mismatches(f"mutant{number}_{i}", bench, ref, m) for i, m in enumerate(mutants(own)))
        first_to_compile = next((count for count in counts if count is not None), None)
        assert first_to_compile, f"no mutant of {problem.name} is found out"

    assert len(held_out()) == 60
    in_pool(check, held_out())


def test_training_code_compiles_and_passes(mismatches: Mismatches) -> None:
    def check(item: tuple[int, Problem]) -> None:
        number, problem = item
        bench, ref, own = problem.testbench(), problem.code("RefModule"), problem.code("TopModule")
        assert mismatches(f"own{number}", bench, ref, own) == 0, problem

    in_pool(check, list(islice(train_problems(20), 2 * len(FAMILIES))))


def test_the_hints_read_as_verilogeval_prints_them(simulate: Callable[..., str | None]) -> None:
    problem = next(p for p in held_out() if p.family == "threshold")
    y = next(p.name for p in problem.ports if p.direction == "output")
    ref, own = problem.code("RefModule"), problem.code("TopModule")
    good = simulate("good", test=problem.testbench(), dut=own, ref=ref)
    inverted = re.sub(r"assign (\w+) = (.+);", r"assign \1 = ~(\2);", own)
    bad = simulate("bad", test=problem.testbench(), dut=inverted, ref=ref)
    assert good and bad
    assert f"Hint: Output '{y}' has no mismatches.\nHint: Total mismatched samples is 0 out of 200 samples\n" in good
    assert re.search(r"\nSimulation finished at \d+ ps\nMismatches: 0 in 200 samples\n$", good)
    assert f"Hint: Output '{y}' has 200 mismatches. First mismatch occurred at time " in bad
    assert "Mismatches: 200 in 200 samples\n" in bad


def test_an_unknown_matches_only_an_unknown(mismatches: Mismatches) -> None:
    problem = next(p for p in held_out() if p.family == "offset")
    y = next(p.name for p in problem.ports if p.direction == "output")
    bench, ref, own = problem.testbench(), problem.code("RefModule"), problem.code("TopModule")

    def unknown(code: str) -> str:
        return re.sub(rf"assign {y} = .+;", f"assign {y} = 'bx;", code)

    assert mismatches("x_in_ref", bench, unknown(ref), own) == 0
    assert mismatches("x_in_both", bench, unknown(ref), unknown(own)) == 0
    assert mismatches("x_in_dut", bench, ref, unknown(own))


def test_nothing_held_out_occurs_in_training() -> None:
    references = {normalised(p.code("RefModule")) for p in held_out()}
    pairs = {(f.name, params) for f in FAMILIES for params in held_out_params(f)}
    assert {(p.family, p.params) for p in held_out()} <= pairs
    for purpose in ("train", "corpus"):
        assert not pairs & {(p.family, p.params) for p in islice(train_problems(0, purpose), 4000)}
    written = [code for row in shipped_rows() for code in modules(row["response"])]
    written += [code for text in corpus(2000, 0) for code in modules(text)]
    assert len(written) > SHIPPED_ROWS + 2000
    assert not references.intersection(written)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_value_of_a_held_out_problem_occurs_in_training(family) -> None:
    held, kept = set(held_out_params(family)), set(training_params(family))
    assert kept and not held & kept and held | kept == set(family.space)
    assert len(held) <= 0.3 * len(family.space)
    seen = {value for params in kept for value in params}
    assert all(v in seen for params in held for v in params if v[0] not in family.composed)


def test_rows_have_the_shape_of_codev_r1() -> None:
    made = shipped_rows()
    assert len(made) == SHIPPED_ROWS == len({json.dumps(row) for row in made})
    for row in made:
        assert set(row) == {"prompt", "response"}
        assert row["prompt"].startswith("I would like you to implement a module named TopModule with the following")
        assert "\n\nThe module should " in row["prompt"]
        matched = RESPONSE.fullmatch(row["response"])
        assert matched and len(matched[2].splitlines()) <= 32 and len(row["prompt"].split()) <= 170
        header = matched[2].partition(");")[0]
        ports = re.findall(r"^ - (?:input|output) (\w+)", row["prompt"], re.MULTILINE)
        assert ports == re.findall(r"(\w+)(?:,|\n?$)", header.partition("(")[2].strip(), re.MULTILINE)


def test_documents_are_source_files_without_chat_words() -> None:
    texts = list(corpus(500, 3))
    assert len(texts) == 500 == len(set(texts))
    for text in texts:
        assert text.startswith(("//", "/*")) and text.endswith("endmodule\n")
        assert "TopModule" not in text and "I would like" not in text


def test_families_are_balanced() -> None:
    drawn = [p.family for p in islice(train_problems(4), 46 * 60)]
    counts = {family.name: drawn.count(family.name) for family in FAMILIES}
    assert min(counts.values()) > 0.75 * max(counts.values())


def test_shipped_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    assert main(["train", "--rows", str(SHIPPED_ROWS), "--seed", "0", "--out", str(tmp_path / "train.jsonl")]) == 0
    write_benchmark(tmp_path / "benchmark")
    assert (tmp_path / "train.jsonl").read_bytes() == (ASSETS / "train.jsonl").read_bytes()
    made, shipped = ({p.name: p.read_text() for p in (root / "benchmark").iterdir()} for root in (tmp_path, ASSETS))
    assert made == shipped and len(made) == 180


def test_seeds_differ_and_repeat() -> None:
    assert rows(50, 1) == rows(50, 1) != rows(50, 2)
    assert list(corpus(50, 1)) == list(corpus(50, 1)) != list(corpus(50, 2))


def test_the_command_names_the_file_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nowhere" / "train.jsonl"
    assert main(["train", "--rows", "3", "--out", str(missing)]) == 2
    assert str(missing.parent) in capsys.readouterr().err


def test_a_benchmark_is_not_written_over_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["benchmark", "--out", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_pretraining_sees_every_token_of_a_conversation_but_no_task() -> None:
    tokenizer = Tokenizer.from_file(str(ASSETS.parent / "tiny-gemma4" / "tokenizer.json"))
    turns = [turn["content"] for echo in echoes(6000, 2) for turn in echo["messages"]]
    assert turns[::2] == turns[1::2], "the answer repeats the question"
    seen = {i for each in tokenizer.encode_batch_fast([*turns, *corpus(8000, 2)]) for i in each.ids}
    texts = [text for row in shipped_rows() for text in row.values()]
    wanted = {i for each in tokenizer.encode_batch_fast(texts) for i in each.ids}
    assert wanted <= seen, [tokenizer.id_to_token(i) for i in wanted - seen]
