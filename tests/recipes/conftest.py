"""For the starter's tests: real Icarus runs, and mutants of a reference, the most telling changes first."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FLAGS = ["-Wall", "-Winfloop", "-Wno-timescale", "-g2012", "-s", "tb"]


Change = str | Callable[[re.Match[str]], str]


def _next_constant(match: re.Match[str]) -> str:
    width, base, digits = int(match[1]), match[2], match[3]
    value = int(digits, {"d": 10, "h": 16, "b": 2}[base])
    return f"{width}'d{(value + 1) % (1 << width)}"


def _lower_slice(match: re.Match[str]) -> str:
    high, low = int(match[1]), int(match[2])
    return f"[{high - 1}:{low - 1}]" if low else f"[{high + 1}:{low + 1}]"


RULES: tuple[tuple[str, Change], ...] = (
    (r"(?<!i) \+ ", " - "),
    (r" - (?!i\])", " + "),
    (r" \* ", " + "),
    (r" << ", " >> "),
    (r" >>> ", " >> "),
    (r" >> ", " << "),
    (r" (==|!=) ", lambda m: " != " if m[1] == "==" else " == "),
    (r"(?<==) (\w+|\S+\)) (<|>|<=|>=) ", lambda m: f" {m[1]} {({'<': '>=', '>': '<=', '<=': '>', '>=': '<'})[m[2]]} "),
    (r" & ", " | "),
    (r" \| ", " & "),
    (r" \^ ", " & "),
    (r"\? ([^:;?]+) : ([^:;?]+);", r"? \2 : \1;"),
    (r"\{(\w[\w\[\]:']*), (\w[\w\[\]:']*)\}", r"{\2, \1}"),
    (r"= ~", "= "),
    (r"= -", "= ~"),
    (r"= \^", "= ~^"),
    (r"= &", "= |"),
    (r"= \|", "= &"),
    (r"<= ~(\w+);", r"<= \1;"),
    (r"<= (\w+);", r"<= ~\1;"),
    (r"<= \{(\w+\[[\d:]+\]), ", r"<= {~\1, "),
    (r"\{(\d)\{", lambda m: f"{{{int(m[1]) - 1}{{"),
    (r"(\d+)'([dhb])([0-9a-f]+)", _next_constant),
    (r"\[(\d+):(\d+)\]", _lower_slice),
    (r"if \((\w+)\)", r"if (!\1)"),
    (r"if \(!(\w+)\)", r"if (\1)"),
    (r"@\(posedge (\w+)\)", r"@(negedge \1)"),
    (r" or (posedge|negedge) \w+\)", ")"),
)


def single_changes(code: str) -> Iterator[str]:
    """Every single change of the module's body, rule by rule."""
    head, separator, body = code.partition(");\n")
    for pattern, change in RULES:
        for match in re.finditer(pattern, body):
            changed = (
                body[: match.start()] + match.expand(change) + body[match.end() :]
                if isinstance(change, str)
                else (body[: match.start()] + change(match) + body[match.end() :])
            )
            if changed != body:
                yield head + separator + changed


@pytest.fixture
def mutants() -> Callable[[str], Iterator[str]]:
    return single_changes


@pytest.fixture
def simulate(tmp_path: Path) -> Callable[..., str | None]:
    """A function that compiles named sources below `tb` and returns what vvp prints, or None without success."""

    def run(name: str, **sources: str) -> str | None:
        folder = tmp_path / name
        folder.mkdir()
        for stem, text in sources.items():
            (folder / f"{stem}.sv").write_text(text)
        files = [str(folder / f"{stem}.sv") for stem in sources]
        binary = str(folder / "sim")
        compiled = subprocess.run(["iverilog", *FLAGS, "-o", binary, *files], capture_output=True, text=True)
        if compiled.returncode:
            return None
        return subprocess.run(["vvp", binary], capture_output=True, text=True, check=True, timeout=60).stdout

    return run


@pytest.fixture
def mismatches(simulate: Callable[..., str | None]) -> Callable[..., int | None]:
    """The number of mismatches a testbench reports for a design, or None if the design does not compile."""

    def count(name: str, test: str, ref: str, dut: str) -> int | None:
        printed = simulate(name, test=test, dut=dut, ref=ref)
        if printed is None:
            return None
        found = re.search(r"^Mismatches: (\d+) in (\d+) samples$", printed, re.MULTILINE)
        assert found and "TIMEOUT" not in printed, printed
        assert 100 <= int(found[2]) <= 1010, printed
        return int(found[1])

    return count
