"""What a stranger's text may do to a terminal: nothing."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.answer import report
from common.errors import UserError
from common.progress import log
from common.terminal import visible, visible_name

HARMLESS = "plain text, é, 漢字, \U0001f600, नमस्ते, \u0645\u0631\u062d\u0628\u0627, a\tb\nc"
SPELLED = {
    "clear the screen": ("\x1b[2J", "\\x1b[2J"),
    "set the clipboard": ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
    "a control of one byte": ("\x9b31m", "\\x9b31m"),
    "overwrite the line": ("bad\rgood", "bad\\x0dgood"),
    "rub out": ("bad\x08\x08\x08", "bad\\x08\\x08\\x08"),
    "turn round": ("\u202eevil\u202c", "\\u202eevil\\u202c"),
    "isolate": ("\u2066x\u2069", "\\u2066x\\u2069"),
    "nothing to see": ("a\u200bb", "a\\u200bb"),
    "tags": ("\U000e0041", "\\U000e0041"),
    "half a pair": ("\ud83d", "\\ud83d"),
    "line ends of Windows": ("a\r\nb", "a\nb"),
}


@pytest.mark.parametrize("kind", SPELLED)
def test_it_is_spelled_out(kind: str) -> None:
    text, shown = SPELLED[kind]
    assert visible(text) == shown and visible(shown) == shown


def test_what_is_harmless_stays() -> None:
    assert visible(HARMLESS) == HARMLESS
    assert visible_name("a\tb\nerror: c\r\x1b[0m") == "a\\tb\\nerror: c\\r\\x1b[0m"


@given(st.text(st.characters(codec=None)))
def test_nothing_that_steers_is_left(text: str) -> None:
    left = {unicodedata.category(sign) for sign in visible(text) if sign not in "\n\t\u200c\u200d"}
    visible(text).encode()
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not set(visible_name(text)) & {"\n", "\t"}


def test_errors_and_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    report(UserError("no \x1b[1m such", where="a\nb\x1b]0;x\x07", fix="do\n  this\u202e"), debug=False)
    report(ValueError("\x9b2J"), debug=False)
    report(UserError("\x1b[2J"), debug=True)
    log("name\x1bc")
    said = capsys.readouterr().err
    assert visible(said) == said and "where: a\\nb\\x1b]0;x" in said and "do\n  this\\u202e" in said


def test_a_file_name_in_a_stage_s_error(tmp_path: Path) -> None:
    job = tmp_path / "a\x1b[31m.json"
    done = subprocess.run([sys.executable, "-m", "eval", str(job)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "\x1b" not in done.stderr and "\\x1b[31m" in done.stderr
