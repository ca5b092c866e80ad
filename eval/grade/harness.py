"""A problem's testbench and reference under names that a design cannot know, with a verdict line it cannot print.

Every run draws fresh nonces. Modules, instances, tasks and everything else a dotted name could start with get one; each
message of the testbench carries another; and guards (`eval.grade.guards`) keep the design's inputs its own.
"""

import re
import secrets
from dataclasses import dataclass, replace
from functools import lru_cache

from common.benchmark.problems import Problem
from eval.grade.extract import TOP, without_comments
from eval.grade.guards import guard, ports_of

_SKIPPED = (
    r"""(?://[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|`\w+|\$\w+|\\\S+"""
    r"""|(?<![\w$])\d*'[sS]?[bodhBODH][\w?]+|(?<![\w$])\d[\w.]*)"""
)
_SKIP = re.compile(_SKIPPED, re.DOTALL)
_MESSAGE = re.compile(r'(\$(?:display|write|strobe|monitor)\s*\(\s*")')
_DECLARED = re.compile(r"\b(?:module|macromodule|program|interface|package)\s+(?:automatic\s+|static\s+)?(\w+)")
_CALLABLE = re.compile(r"\b(?:task|function)\b(?:\s+(?:automatic|static))?[^;()]*?(\w+)\s*[;(]")
_LABEL = re.compile(r"\b(?:begin|fork)\s*:\s*(\w+)")
_WHOLE = re.compile(
    r"\b(?:(?:macro)?module|(?P<kind>interface|package|program|class|primitive|function|task))\b.*?\bend(?(kind)(?P=kind)|module)\b",
    re.DOTALL,
)
_OUTSIDE = re.compile(r"\b(?!(?:logic|reg|wire|bit|byte|int|signed|unsigned|enum)\b)([A-Za-z_]\w*)\s*[=,;\[]")
_DOTTED = re.compile(r"\b([A-Za-z_]\w*)\s*\.\s*[A-Za-z_]")
_SUFFIX, _MARK, _KEY = "\ue000", "\ue001", "\ue002"
"""Stand for what is drawn, in a template: private characters, which no Verilog has."""
_PORT = re.compile(r"(?:^|[(,\s])\.([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Harness:
    """Texts to compile with a design, the module to start from, and the marks of this run (secret to the design)."""

    test: str
    reference: str
    top: str
    suffix: str
    mark: str

    def clean(self, text: str) -> str:
        """Tool output without this run's nonces."""
        return text.replace(self.suffix, "").replace(self.mark, "")


@lru_cache(maxsize=16)
def blank(text: str) -> str:
    """The text with everything but names, punctuation and space blanked out."""
    return _SKIP.sub(lambda m: "\n".join(" " * len(line) for line in m.group().split("\n")), text)


def rename(text: str, names: dict[str, str]) -> str:
    """Replace identifiers; comments, strings, macros, numbers and named port connections stay."""
    if not names:
        return text
    wanted = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    pattern = re.compile(rf"{_SKIPPED}|(?P<port>\.[ \t]*)?(?<![\w$])(?P<name>{wanted})(?![\w$])", re.DOTALL)

    def one(match: re.Match[str]) -> str:
        name = match.group("name")
        return match.group() if name is None or match.group("port") else names[name]

    return pattern.sub(one, text)


def modules(text: str) -> list[str]:
    return _DECLARED.findall(blank(text))


def _instances(plain: str, kinds: list[str]) -> set[str]:
    if not kinds:
        return set()
    kind = "|".join(map(re.escape, kinds))
    return set(re.findall(rf"\b(?:{kind})\b\s*(?:#\s*\([^;]*?\)\s*)?(\w+)\s*\(", plain))


def _reachable(test: str, kinds: list[str]) -> set[str]:
    """Names of the testbench through which a design could reach into it."""
    plain = blank(test)
    found = _instances(plain, [*kinds, TOP]) | set(_CALLABLE.findall(plain)) | set(_LABEL.findall(plain))
    found |= set(_DOTTED.findall(plain))
    return found - set(_PORT.findall(plain)) - {TOP}


def _outside(problem: Problem) -> set[str]:
    """Names that testbench and reference declare outside of their modules: they need no path to be reached."""
    found = {
        name for text in (problem.test, problem.reference) for name in _OUTSIDE.findall(_WHOLE.sub(" ", blank(text)))
    }
    ports = ports_of(without_comments(problem.reference), "RefModule")
    return found - {*_PORT.findall(blank(problem.test)), *ports, TOP}


def _main_module(test: str) -> tuple[str, int, int] | None:
    """Name, start and place of the `endmodule` of the testbench's module that instantiates the design."""
    plain = blank(test)
    for match in re.finditer(r"\bmodule\s+(\w+)(.*?)\bendmodule\b", plain, re.DOTALL):
        if re.search(rf"\b{TOP}\b", match.group(2)):
            return match.group(1), match.start(), match.end() - len("endmodule")
    return None


def _guarded(problem: Problem, start: int, end: int) -> str | None:
    """The testbench with one-way inputs and the record (`eval.grade.guards`) in its main module."""
    body = problem.test[start:end]
    ports = ports_of(without_comments(problem.reference), "RefModule")
    edits = guard(without_comments(body), ports, _SUFFIX, _MARK, _KEY)
    if edits is None:
        return None
    for at, until, text in sorted(edits, reverse=True):
        body = body[:at] + text + body[until:]
    return problem.test[:start] + body + problem.test[end:]


@lru_cache(maxsize=1024)
def _template(problem: Problem) -> Harness | None:
    """The harness with placeholders for what is drawn, which the slow part of building it does not depend on."""
    main = _main_module(problem.test)
    test = _guarded(problem, *main[1:]) if main else None
    if main is None or test is None:
        return None
    kinds = [*modules(problem.test), *modules(problem.reference)]
    outside = _outside(problem)
    names = {name: name + _SUFFIX for name in [*kinds, *_reachable(problem.test, kinds), *outside] if name != TOP}
    test = _MESSAGE.sub(lambda m: m.group() + _MARK, rename(test, names))
    return Harness(
        test=test.replace(_MARK + _MARK, _MARK),
        reference=rename(problem.reference, {name: name + _SUFFIX for name in [*modules(problem.reference), *outside]}),
        top=names[main[0]],
        suffix=_SUFFIX,
        mark=_MARK,
    )


def build(problem: Problem, key: int = 1) -> Harness | None:
    """The harness of one run, or None where the testbench connects no TopModule. `key`: of the record, an odd number
    of 64 bits that a golden run draws and those that are compared with it share."""
    template = _template(problem)
    if template is None:
        return None
    suffix, mark = f"_n{secrets.token_hex(8)}", f"<{secrets.token_hex(16)}> "

    def drawn(text: str) -> str:
        return text.replace(_SUFFIX, suffix).replace(_MARK, mark).replace(_KEY, str(key))

    return replace(
        template,
        test=drawn(template.test),
        reference=drawn(template.reference),
        top=drawn(template.top),
        suffix=suffix,
        mark=mark,
    )


def reference_as_design(problem: Problem) -> str:
    """The reference as if a model had written it: its main module named TopModule, its helpers under other names."""
    own = modules(problem.reference)
    main = next((name for name in own if name == "RefModule"), own[-1] if own else "")
    names = {name: f"golden_{name}" for name in own} | {main: TOP}
    return rename(problem.reference, names)
