"""`tapeout data --show`: exactly what the stage writes, as lines for tools, in a terminal, and as a page."""

import html
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.text.packed_rows import read_rows

ROOT = Path(__file__).parents[2]
RowsFile = Callable[..., str]
SAID = [
    {"role": "system", "content": "be <|turn> brief"},
    {"role": "user", "content": "say <turn|> & 日本"},
    {"role": "assistant", "content": "first\n\n```verilog\nmodule m;\nendmodule\n```"},
    {"role": "user", "content": "again"},
    {"role": "assistant", "content": "second [bold] <bos> 🙂"},
]
TEXT = (
    "<bos><|turn>system\nbe <|turn> brief<turn|>\n<|turn>user\nsay <turn|> & 日本<turn|>\n<|turn>model\n"
    "first\n\n```verilog\nmodule m;\nendmodule\n```<turn|>\n<|turn>user\nagain<turn|>\n<|turn>model\n"
    "second [bold] <bos> 🙂<turn|>\n"
)


def tapeout(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tapeout", "data", *arguments]
    clean = {name: value for name, value in os.environ.items() if name != "TAPEOUT_DEBUG"}
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False, **more)


def test_json_lines_are_what_the_stage_writes(
    rows_file: RowsFile, prepare: Callable[..., Any], tokenizer_folder: str, tmp_path: Path
) -> None:
    rows = [{"messages": SAID}, {"text": "module a;\nendmodule"}, {"prompt": "p", "response": "r"}]
    path = rows_file([*rows, b"never read"])
    done = tapeout("--model", tokenizer_folder, "--input", path, "--show", "3", "--json")
    assert done.returncode == 0 and done.stderr == ""
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(shown) == 3 and all(set(one) == {"ids", "mask", "text"} for one in shown)
    assert shown[0]["text"] == TEXT and shown[1]["text"] == "<bos>module a;\nendmodule<eos>"
    prepare(path, form="auto", packing="none", limit=3)
    stored = [(row.ids.tolist(), row.mask.astype(int).tolist()) for row in read_rows(tmp_path / "out" / "train")]
    assert sorted((one["ids"], one["mask"]) for one in shown) == sorted(stored)


def test_markers_stand_in_for_colours(rows_file: RowsFile, tokenizer_folder: str) -> None:
    done = tapeout("--model", tokenizer_folder, "--input", rows_file([{"messages": SAID}]), "--show", "1")
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert "rows.jsonl:1: " in done.stdout
    assert "‹<|turn>›model\n⟦first\n" in done.stdout and "```‹<turn|>›⟧\n" in done.stdout
    assert "be <|turn> brief‹<turn|>›" in done.stdout and "⟦second [bold] <bos> 🙂‹<turn|>›⟧" in done.stdout


def test_a_terminal_gets_colours(rows_file: RowsFile, tokenizer_folder: str) -> None:
    path = rows_file([{"messages": SAID}])
    command = [sys.executable, "-m", "tapeout", "data", "--model", tokenizer_folder, "--input", path, "--show", "1"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, env=os.environ | {"TERM": "xterm-256color"})
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:
        pass  # Linux says so when the other side is closed
    finally:
        os.close(ours)
    assert process.wait() == 0
    text = seen.decode()
    assert re.search(r"\x1b\[[0-9;]*32m[^\x1b]*second \[bold\]", text) and "⟦" not in text
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "").endswith(TEXT + "\n")


def test_a_page_holds_the_text_and_marks_it(rows_file: RowsFile, tokenizer_folder: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    path = rows_file([{"messages": SAID}])
    done = tapeout("--model", tokenizer_folder, "--input", path, "--show", "1", "--html", str(page))
    assert done.returncode == 0 and done.stdout == "" and str(page) in done.stderr
    body = page.read_text(encoding="utf-8").partition("<pre>")[2].partition("</pre>")[0]
    assert html.unescape(re.sub(r"</?span[^>]*>", "", body)) == TEXT
    supervised = re.findall(r'<span class="s(?: c)?">([^<]*)</span>', body)
    assert html.unescape("".join(supervised)) == (
        "first\n\n```verilog\nmodule m;\nendmodule\n```<turn|>second [bold] <bos> 🙂<turn|>"
    )
    assert "src=" not in page.read_text() and "http" not in page.read_text()


def test_a_recipe_is_shown_with_its_own_settings() -> None:
    done = tapeout("quickstart", "--show", "2", "--json", "--set", "data.train_on=last_turn")
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(shown) == 2
    assert all("TopModule" in one["text"] and 0 < sum(one["mask"]) < len(one["mask"]) for one in shown)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--html", "/nowhere/page.html"], "no such folder"),
        (["--html", "page.html", "--json"], "leave out either"),
        (["--out", "x"], "--show writes no result"),
        (["--set", "data.limitt=3"], "limitt"),
        (["--format", "alpaca"], "no column 'instruction'"),
    ],
)
def test_what_cannot_be_shown_is_said_on_one_screen(
    rows_file: RowsFile, tokenizer_folder: str, more: list[str], said: str
) -> None:
    path = rows_file([{"prompt": "p", "response": "r"}])
    done = tapeout("--model", tokenizer_folder, "--input", path, "--show", "1", *more)
    assert done.returncode == 2 and said in done.stderr and done.stdout == "" and "Traceback" not in done.stderr


def test_a_row_that_cannot_be_read_is_named(rows_file: RowsFile, tokenizer_folder: str) -> None:
    path = rows_file([{"prompt": "p", "response": "r"}, b"{"])
    done = tapeout("--model", tokenizer_folder, "--input", path, "--show", "2", "--json")
    assert done.returncode == 2 and "rows.jsonl:2" in done.stderr and done.stdout == ""


def test_rows_do_not_steer_the_terminal(rows_file: RowsFile, tokenizer_folder: str) -> None:
    path = rows_file([{"text": "a\x1b[2Jb\x9b1m\rc\u202e"}])
    done = tapeout("--model", tokenizer_folder, "--input", path, "--show", "1")
    assert done.returncode == 0 and "a\\x1b[2Jb\\x9b1m" in done.stdout
    assert not set(done.stdout) & {"\x1b", "\x9b", "\r", "\u202e"}
