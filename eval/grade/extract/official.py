"""The line rule of VerilogEval v2's own harness (scripts/sv-generate, revision c498220), restated: for scores that
are to be compared with published ones.

A question's answer is what stands between the first [BEGIN] and the [DONE] after it. Without a [BEGIN], and for code
completion: with two or more fence lines, what stands between the first two; else from the line of the module (if one
begins before any `endmodule` does) to the first line of an `endmodule`. Where no such module line is there, code
completion puts the given header before it.
"""

from collections.abc import Callable

BEGIN, DONE, FENCE = "[BEGIN]", "[DONE]", "```"
_MODULE, _END = "module TopModule", "endmodule"


def _first(lines: list[str], holds: Callable[[str], bool]) -> int | None:
    return next((i for i, line in enumerate(lines) if holds(line)), None)


def _marked(lines: list[str]) -> list[str] | None:
    """The lines between the marks; None without a [BEGIN], none of them without a [DONE] on a later line."""
    begin = _first(lines, lambda line: line.strip().startswith(BEGIN))
    if begin is None:
        return None
    done = _first(lines[begin + 1 :], lambda line: line.strip() == DONE or line.rstrip().endswith(DONE))
    if done is None:
        return []
    inner = lines[begin + 1 : begin + 1 + done]
    first, last = lines[begin], lines[begin + 1 + done]
    before = [] if first.strip() == BEGIN else [first.lstrip().replace(BEGIN, "")]
    after = [] if last.strip() == DONE else [last.rstrip().replace(DONE, "")]
    return [*before, *inner, *after]


def _has_module(lines: list[str]) -> bool:
    """Whether a module line stands at the margin, and no `endmodule` at the margin before the first of them."""
    module = _first(lines, lambda line: line.startswith(_MODULE))
    end = _first(lines, lambda line: line.startswith(_END))
    return module is not None and (end is None or module < end)


def _code(lines: list[str], whole: bool) -> list[str]:
    fences = [i for i, line in enumerate(lines) if line.startswith(FENCE)]
    if len(fences) >= 2:
        return lines[fences[0] + 1 : fences[1]]
    bare = [line for line in lines if not line.startswith(FENCE)]
    start = _first(bare, lambda line: line.strip().startswith(_MODULE)) if whole else 0
    end = _first(bare, lambda line: line.strip().startswith(_END))
    return bare[start : len(bare) if end is None else end + 1]


def extract(completion: str, interface: str) -> str:
    """The text that the official harness would compile, less its remarks; `interface` marks code completion."""
    lines = completion.splitlines()
    marked = None if interface else _marked(lines)
    if marked is not None:
        return "\n".join(marked) + "\n"
    whole = _has_module(lines)
    header = f"{interface}\n\n" if interface and not whole else ""
    return header + "\n".join(_code(lines, whole)) + "\n"
