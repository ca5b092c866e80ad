"""The waves of a sample beside the reference's, from a real simulation and from dumps of all kinds."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.benchmark.layouts import load_benchmark
from common.errors import UserError
from eval.config import EvalConfig, EvalInputs
from eval.show.sample import show, trace
from eval.show.wave_chart import chart
from eval.show.waves import excerpt, read_waves, shown
from eval.stage import run, simulator_of

VCD = """$timescale 1ps $end
$scope module tb $end
$var wire 1 ! clk $end
$var wire 4 " q_ref [3:0] $end
$var wire 4 # q_dut [3:0] $end
$scope module inner $end
$var wire 1 $ hidden $end
$upscope $end
$upscope $end
$enddefinitions $end
#0
0!
bx "
bx #
#5
1!
b101 "
b1 #
1$
#10
0!
"""


def test_a_dump_becomes_a_table() -> None:
    waves = read_waves(VCD, "tb")
    assert waves.names == ("clk", "q_ref", "q_dut")
    assert waves.rows == ((0, ("0", "x", "x")), (5, ("1", "101", "1")), (10, ("0", "101", "1")))
    lines = excerpt(waves, list(waves.names), at=5, before=1, after=0).splitlines()
    assert [line.split() for line in lines] == [
        ["time", "clk", "q_ref", "q_dut"],
        ["0", "0", "x", "x"],
        [">", "5", "1", "h5", "1"],
    ]
    assert shown("x01") == "x01" and shown("1111") == "hf"


@pytest.mark.parametrize("text", ["", "$enddefinitions $end\n#0\n1!", VCD[:120], "\0" * 100, "#" * 1000])
def test_odd_dumps_are_no_table(text: str) -> None:
    waves = read_waves(text, "tb")
    assert excerpt(waves, ["clk"], at=0) == "" and chart(waves, ["clk"], 0, "") == ""


def _classes(drawn: str) -> list[str]:
    return [element.get("class", "") for element in ElementTree.fromstring(drawn).iter()]


def test_a_dump_becomes_a_drawing() -> None:
    drawn = chart(read_waves(VCD, "tb"), ["clk", "q_ref", "q_dut"], at=5, title="one & <two>")
    tree, classes = ElementTree.fromstring(drawn), _classes(drawn)
    texts = ["".join(element.itertext()) for element in tree.iter() if element.tag.endswith("text")]
    assert texts == ["one & <two>", "0", "5", "10", "clk", "q_ref", "x", "h5", "q_dut", "x", "1"]
    assert classes.count("differs") == 2 and classes.count("moment") == 1  # from the time 5 on, in two rows
    (path,) = (element.get("d", "") for element in tree.iter() if element.tag.endswith("path"))
    low, high, again = re.findall(r"[ML]\S+ (\d+)H", path)
    assert low == again != high


def test_unknown_bits_and_high_impedance_are_drawn() -> None:
    drawn = chart(read_waves(VCD.replace("#5\n1!", "#5\nz!").replace("#10\n0!", "#10\nx!"), "tb"), ["clk"], 5, "")
    assert {"wave", "high-z", "unknown"} <= set(_classes(drawn))


@pytest.fixture
def scored(benchmark_folder: Path, tmp_path: Path, solve: Callable[[str], str]) -> dict[str, Any]:
    right = solve("Prob002_sum")
    texts = [right, right.replace("q + d", "q - d"), right.replace("q + d", "q + $fopen(d)"), "none"]
    stored = tmp_path / "stored.jsonl"
    stored.write_text("".join(json.dumps({"task_id": "Prob002", "completion": text}) + "\n" for text in texts))
    config = EvalConfig(benchmark=str(benchmark_folder), completions=str(stored))
    run(config, EvalInputs(), tmp_path)
    return {"run": str(tmp_path), "task": "Prob002", "sample": None, "config": config.model_dump(mode="json")}


def test_the_first_failure_is_shown_with_its_waves(scored: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in (Path(scored["run"]) / "results.jsonl").read_text().splitlines()]
    first = rows[1]["first_mismatch"]
    assert first["outputs"] == ["q"] and rows[0]["first_mismatch"] is None
    text = show(scored)
    assert "Prob002_sum, sample 1 (1 of 4 passed)" in text and "q - d" in text and "RefModule" in text
    assert f"q at time {first['time']}" in text
    table = text.split("-- waves")[1].splitlines()[1:]
    names = table[0].split()
    assert names[:2] == ["time", "clk"] and names[-2:] == ["q_ref", "q_dut"] and "tb_match" not in names
    marked = [line.split()[1:] for line in table if line.startswith(">")]
    assert marked and all(line[names.index("q_ref")] != line[names.index("q_dut")] for line in marked)
    assert any(int(line[0]) <= first["time"] for line in marked)


def test_a_pass_has_waves_and_a_rejected_text_none(scored: dict[str, Any]) -> None:
    passed = show(scored | {"sample": 0})
    assert "-- verdict\npassed" in passed and "-- waves" in passed and "\n>" not in passed.split("-- waves")[1]
    for sample, category in ((2, "rejected"), (3, "no_module")):
        text = show(scored | {"sample": sample})
        assert f"-- verdict\n{category}" in text and "-- waves" not in text


def test_the_waves_are_drawn(scored: dict[str, Any], tmp_path: Path) -> None:
    show(scored | {"svg": str(tmp_path / "waves.svg")})
    drawn = (tmp_path / "waves.svg").read_text()
    assert "Prob002_sum, sample 1: mismatch" in drawn and {"differs", "moment"} <= set(_classes(drawn))
    assert drawn.index(">q_ref<") < drawn.index(">q_dut<")
    show(scored | {"svg": str(tmp_path / "right.svg"), "sample": 0})
    assert "differs" not in _classes((tmp_path / "right.svg").read_text())
    with pytest.raises(UserError, match="no waves to draw: rejected"):
        show(scored | {"svg": str(tmp_path / "none.svg"), "sample": 2})
    assert not (tmp_path / "none.svg").exists()


def test_what_is_not_there_is_told(scored: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no such problem"):
        show(scored | {"task": "Prob9"})
    with pytest.raises(UserError, match="no such sample") as error:
        show(scored | {"sample": 7})
    assert "0, 1, 2, 3" in error.value.fix


def test_a_design_cannot_dump_elsewhere(benchmark_folder: Path, tmp_path: Path, top: Callable[[str], str]) -> None:
    problem = load_benchmark(str(benchmark_folder)).by_id["Prob001_register"]
    target = tmp_path / "escaped.vcd"
    design = top(f'initial begin q = 0; $dumpfile("{target}"); $dumpvars; end')
    trace(problem, design, simulator_of(EvalConfig(benchmark="b")))
    assert not target.exists()


def test_a_completion_does_not_steer_the_terminal(
    benchmark_folder: Path, tmp_path: Path, solve: Callable[[str], str]
) -> None:
    text = "\x1b]0;x\x07// \ud83d\u202e\x9b2J\r\n" + solve("Prob002_sum")
    (tmp_path / "stored.jsonl").write_text(json.dumps({"task_id": "Prob002", "completion": text}) + "\n")
    config = EvalConfig(benchmark=str(benchmark_folder), completions=str(tmp_path / "stored.jsonl"))
    assert run(config, EvalInputs(), tmp_path)["pass@1"] == 1.0
    job = {"run": str(tmp_path), "task": "Prob002", "sample": None, "config": config.model_dump(mode="json")}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "eval.show.sample", str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    shown = json.loads(done.stdout)
    assert done.returncode == 0 and "\\x1b]0;x\\x07// \\ud83d\\u202e\\x9b2J\n" in shown
    assert not set(shown) & {"\x1b", "\x9b", "\x07", "\r", "\u202e"}
