"""Near-duplicates, copies of a benchmark's problems and designs that do not compile are found, counted and left out."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from data.config import DataConfig
from data.formats import Example
from data.screen.compile_check import SILENCE_S, compiling, design_of
from data.screen.contamination import BenchmarkIndex
from data.screen.near import BINS, GROUP, NearDuplicates, rows_per_band, signature
from data.screen.rtl import modules, runs

RowsFile = Callable[..., str]
Prepare = Callable[..., dict[str, Any]]
WORDS = [f"{a}{b}" for a in ("sum", "carry", "clk", "state", "load", "grant", "shift") for b in range(40)]


def text_of(rng: random.Random, words: int = 200) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def changed(text: str, rng: random.Random, words: int) -> str:
    parts = text.split(" ")
    for place in rng.sample(range(len(parts)), words):
        parts[place] = f"other{rng.randrange(1000)}"
    return " ".join(parts)


def jaccard(a: str, b: str) -> float:
    """Of the sets of 12 bytes, counted one by one."""
    one, two = ({text[i : i + 12] for i in range(len(text) - 11)} for text in (a, b))
    return len(one & two) / len(one | two)


def test_signatures_agree_as_often_as_shingles_are_shared() -> None:
    rng, errors = random.Random(0), []
    for _ in range(200):
        text = text_of(rng)
        other = changed(text, rng, rng.randint(0, 40))
        errors.append(float((signature(text) == signature(other)).mean()) - jaccard(text, other))
    assert abs(np.mean(errors)) < 0.01 and np.std(errors) < 0.05


@pytest.mark.parametrize("text", ["", "a", "kurz", "日本語", "half \ud800 pair"])
def test_short_and_odd_texts_have_signatures(text: str) -> None:
    assert signature(text).shape == (BINS,)
    assert NearDuplicates(0.8).keep([text, "another text altogether", f"  {text.upper()}\n"]) == [True, True, False]


def test_near_duplicates_are_found_in_the_group_and_across_groups() -> None:
    rng = random.Random(1)
    originals = [text_of(rng) for _ in range(3 * GROUP)]
    near = [changed(text, rng, 2) for text in originals[:50]]
    known = NearDuplicates(0.8)
    assert known.keep(originals[:100] + near[:5]) == [True] * 100 + [False] * 5
    for start in range(100, len(originals), GROUP):
        assert all(known.keep(originals[start : start + GROUP]))
    assert not any(known.keep(near)) and known.kept == len(originals)
    assert all(NearDuplicates(0.99).keep(originals[:50] + near))


def test_bands_miss_next_to_nothing_at_the_threshold() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 1.0):
        wide = rows_per_band(threshold)
        assert BINS % wide == 0 and (1 - threshold**wide) ** (BINS // wide) <= 0.005


def test_the_stage_counts_near_duplicates_whatever_their_place(rows_file: RowsFile, prepare: Prepare) -> None:
    rng = random.Random(2)
    texts = [text_of(rng) for _ in range(300)]
    rows = [{"text": text} for text in texts] + [{"text": changed(text, rng, 2)} for text in texts[::3]]
    figures = prepare(rows_file(rows), form="text", max_length=8192, near_duplicates=0.8)
    assert figures["kept"] == 300 and figures["dropped"] == {"near duplicate": 100}
    assert prepare(rows_file(rows), form="text", max_length=8192)["kept"] == 400


COUNTER = """module TopModule(input clk, input reset, output reg [3:0] q);
  // counts
  always @(posedge clk)
    if (reset) q <= 4'd0;
    else q <= q + 4'd1;
endmodule"""
ADDER = "module RefModule(input [7:0] x, input [7:0] y, output [8:0] s);\n  assign s = x + y;\nendmodule\n"
PARITY = "module RefModule(input [7:0] in, output parity);\n  assign parity = ^in;\nendmodule\n"
SAYS = "I would like you to implement a module named TopModule with the following interface. "
PROMPTS = {
    "Prob001_count": SAYS + "Count upwards from zero with a synchronous reset and wrap around after fifteen.",
    "Prob002_add": SAYS + "Add two unsigned numbers of eight bits and give all nine bits of their sum.",
    "Prob003_parity": SAYS + "Give the even parity of a byte, which is one where an odd number of bits is set.",
}
REFERENCES = {
    "Prob001_count": COUNTER.replace("TopModule", "RefModule"),
    "Prob002_add": ADDER,
    "Prob003_parity": PARITY,
}


@pytest.fixture
def benchmark_folder(tmp_path: Path) -> str:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    for name, prompt in PROMPTS.items():
        (folder / f"{name}_prompt.txt").write_text(prompt + "\n")
        (folder / f"{name}_ref.sv").write_text(REFERENCES[name])
    return str(folder)


def test_names_comments_and_spaces_make_no_other_design() -> None:
    renamed = """module other(input c, input rst, output reg [3:0] n); always @ ( posedge c ) /* up */
    if (rst) n<=4'd0; else n <= n+4'd1; endmodule"""
    assert runs(next(modules(COUNTER))).tolist() == runs(next(modules(f"text {renamed} text"))).tolist()
    assert runs(COUNTER.replace("posedge", "negedge")).tolist() != runs(COUNTER).tolist()
    swapped = COUNTER.replace("q + 4'd1", "clk + 4'd1")
    assert runs(next(modules(swapped))).tolist() != runs(next(modules(COUNTER))).tolist()


def row(prompt: str, code: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": f"Here it is.\n```verilog\n{code}\n```"}


CLEAN = row(
    SAYS + "Divide the clock by three, with a duty cycle of one half.",
    "module TopModule(input clk, output q);\n  divider #(3) d(.clk(clk), .q(q));\nendmodule",
)
LEAKS_PROMPT = row(f"Task 7\n\n{PROMPTS['Prob003_parity']}\n\nThink first.", "module TopModule; endmodule")
LEAKS_RTL = row(
    "Something that counts.", COUNTER.replace("q", "value").replace("reset", "rst").replace("  // counts\n", "")
)


def test_copies_of_problems_are_named(rows_file: RowsFile, prepare: Prepare, benchmark_folder: str) -> None:
    path = rows_file([CLEAN, LEAKS_PROMPT, LEAKS_RTL])
    found = prepare(path, form="prompt-completion", benchmark=benchmark_folder)
    assert found["kept"] == 3 and found["contamination"]["rows"] == found["contamination"]["problems"] == 2
    worst = {pair["problem"]: pair for pair in found["contamination"]["worst"]}
    assert (worst["Prob003_parity"]["where"], worst["Prob003_parity"]["of"]) == (f"{path}:2", "words")
    assert (worst["Prob001_count"]["where"], worst["Prob001_count"]["of"]) == (f"{path}:3", "rtl")
    assert worst["Prob003_parity"]["similarity"] >= 0.95 and worst["Prob001_count"]["similarity"] == 1.0
    assert worst.get("Prob002_add", {"similarity": 0.0})["similarity"] < 0.3


def test_copies_of_problems_are_dropped_or_refused(
    rows_file: RowsFile, prepare: Prepare, benchmark_folder: str
) -> None:
    path = rows_file([CLEAN, LEAKS_PROMPT, LEAKS_RTL])
    dropped = prepare(path, form="prompt-completion", benchmark=benchmark_folder, contamination="drop")
    assert dropped["kept"] == 1 and dropped["dropped"] == {"contaminated": 2}
    with pytest.raises(UserError, match=r"resembles Prob003_parity .*words") as caught:
        prepare(path, form="prompt-completion", benchmark=benchmark_folder, contamination="error")
    assert caught.value.where == f"{path}:2"
    lenient = prepare(path, form="prompt-completion", benchmark=benchmark_folder, contamination="off")
    assert lenient["kept"] == 3 and "contamination" not in lenient


def test_a_benchmark_without_problems_is_an_error(
    rows_file: RowsFile, prepare: Prepare, tmp_path: Path, benchmark_folder: str
) -> None:
    with pytest.raises(UserError, match="no problems"):
        prepare(rows_file([CLEAN]), form="prompt-completion", benchmark=str(tmp_path))
    with pytest.raises(UserError, match="compares with a benchmark, and there is none") as caught:
        prepare(rows_file([CLEAN]), form="prompt-completion", contamination="drop")
    assert caught.value.where == "data.contamination"
    assert BenchmarkIndex(benchmark_folder).names == sorted(PROMPTS)


GOOD = "module TopModule(input a, output b);\n  helper h(.x(a), .y(b));\nendmodule"


def test_answers_that_do_not_compile(rows_file: RowsFile, prepare: Prepare) -> None:
    wrong = ["module m(input a, output b); assign b = nowhere; endmodule", "module m(", "assign b = 1;"]
    path = rows_file([row("p", GOOD), *(row(f"p{i}", code) for i, code in enumerate(wrong))])
    found = prepare(path, form="prompt-completion", compile_check="drop")
    assert found["kept"] == 1 and found["dropped"] == {"does not compile": 2, "no Verilog to compile": 1}
    with pytest.raises(UserError, match="does not compile") as caught:
        prepare(path, form="prompt-completion", compile_check="error")
    assert caught.value.where == f"{path}:2"


def test_many_answers_come_back_in_their_order() -> None:
    config = DataConfig.model_validate({"sources": [{"path": "x"}], "compile_check": "drop"})
    given = [Example(str(i), text=GOOD if i % 3 else f"module m{i}; oops") for i in range(400)]
    dropped: Counter[str] = Counter()
    assert [example.where for example in compiling(config, given, dropped)] == [str(i) for i in range(400) if i % 3]
    assert dropped == {"does not compile": 134}


def test_what_kills_or_hangs_slang_is_a_design_that_does_not_compile() -> None:
    config = DataConfig.model_validate({"sources": [{"path": "x"}], "compile_check": "drop"})
    deep = "module m; assign a = " + "(" * 300_000 + "1" + ")" * 300_000 + "; endmodule"
    given = [Example("deep", text=deep), *(Example(str(i), text=GOOD) for i in range(4))]
    dropped: Counter[str] = Counter()
    assert [example.where for example in compiling(config, given, dropped)] == ["0", "1", "2", "3"]
    assert dropped == {"does not compile": 1} and SILENCE_S > 0


def test_the_design_is_the_fence_of_the_last_answer() -> None:
    said = [("user", "module x"), ("assistant", "```v\nmodule a;\n```"), ("assistant", "```verilog\nmodule b;\n```")]
    messages = tuple({"role": role, "content": text} for role, text in said)
    assert design_of(Example("", messages)) == "module b;\n"
    assert design_of(Example("", messages[:1])) == design_of(Example("", text="// module c")) == ""
