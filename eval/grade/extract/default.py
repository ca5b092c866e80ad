"""The default rule: the design that an answer means, of whatever shape. docs/eval.md states it.

The marks that VerilogEval's prompts ask for, else the last fence with a TopModule that has a body, else the code that
stands in prose, else a body that continues the given header.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from eval.grade.extract.fences import Fence, fences, outside
from eval.grade.extract.prose import code_in
from eval.grade.extract.reasoning import Answer, answer
from eval.grade.extract.verilog import TOP, best, defines, first_end, instantiated, modules, reached, without_comments

_BEGIN_OR_DONE = re.compile(
    r"(?P<begin>^[ \t]*\[BEGIN\])|^[ \t]*\[DONE\]|(?:(?<=endmodule)|(?<![\w\])$]))\[DONE\](?=[ \t]*$)", re.MULTILINE
)
_BEGIN = re.compile(r"^[ \t]*\[BEGIN\]", re.MULTILINE)
_DECLARED = re.compile(
    r"^[ \t]*(?:`define[ \t]+(?P<macro>\w+)(?:[^\n]*\\\n)*[^\n]*\n?"
    r"|(?P<kind>package|interface|primitive|function|task)\s+(?:automatic\s+)?[^;(#\n]*?\b(?P<block>\w++)\s*+[;(#]"
    r"|typedef\b(?P<of>[^;{]{0,4000}+)(?:\{[^}]{0,4000}+\})?(?P<type>[^;]{0,4000}+);[^\n]*\n?)",
    re.MULTILINE,
)
_BLOCK_END = re.compile(r"\bend(?P<kind>package|interface|primitive|function|task)\b")
_LAST_NAME = re.compile(r"\b[A-Za-z_]\w*+(?=\s*(?:\[[^\]]*\]\s*)*\Z)")
_CODE = re.compile(r"\b(?:assign|always\w*|initial|generate|endmodule)\b")


def writable(text: str) -> str:
    """The text with U+FFFD in place of halves of surrogate pairs, which no file can hold."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def clean(text: str) -> str:
    """Line ends as the official harness takes them, no byte-order marks, nothing that no file can hold."""
    lines = "".join(f"{line}\n" for line in text.replace("\ufeff", "").splitlines())
    return writable(lines)


def _pieces(text: str) -> list[tuple[str, str]]:
    """(name, code) of what a text declares for others to use: modules, packages, macros, types and their like."""
    own = [(m.name, text[m.start : m.end] + "\n", m.start) for m in modules(text) if m.closed and m.name != TOP]
    own += _declared(text)
    return [(name, code) for name, code, _ in sorted(own, key=lambda piece: piece[2])]


def _declared(text: str) -> Iterator[tuple[str, str, int]]:
    """(name, code, place) of macros, types, packages and their like."""
    plain, at = without_comments(text), 0
    ends: dict[str, list[int]] = {}
    for end in _BLOCK_END.finditer(plain):
        ends.setdefault(end["kind"], []).append(end.end())
    while found := _DECLARED.search(plain, at):
        at, name = found.end(), found["macro"] or found["block"]
        if found["block"]:
            of_kind = ends.get(found["kind"], [])
            place = bisect_right(of_kind, at)
            if place == len(of_kind):
                continue
            at = plain.find("\n", of_kind[place]) + 1 or len(plain)
        elif found["type"] is not None:
            last = _LAST_NAME.search(found["type"]) or _LAST_NAME.search(found["of"])
            name = last.group() if last else ""
        yield name, text[found.start() : at].rstrip("\n") + "\n", found.start()


def _used(plain: str) -> tuple[set[str], set[str]]:
    """The modules and the other names that a text (without comments) uses."""
    return instantiated(plain), set(re.findall(r"\w+", plain))


def _with_helpers(chosen: str, before: list[str], after: list[str]) -> str:
    """The chosen code behind what it uses and does not declare, taken from the other blocks, the nearest first."""
    near = [piece for block in [*reversed(before), *after] for piece in _pieces(block)]
    if not near:
        return chosen
    pool: dict[str, str] = {}
    for name, code in near:
        pool.setdefault(name, code)
    for name in ({name for name, _ in _pieces(chosen)} | {TOP}) & pool.keys():
        del pool[name]
    of_modules = {name for name, code in pool.items() if re.match(r"\s*(?:macro)?module\b", code)}
    taken, new = list[str](), [chosen]
    while new:
        own, words = _used(without_comments("".join(new)))
        new = [pool.pop(name) for name in (own & of_modules | words - of_modules) & pool.keys()]
        taken += new
    place = {code: i for i, code in enumerate(code for block in [*before, *after] for _, code in _pieces(block))}
    return "".join([*sorted(taken, key=place.__getitem__), chosen])


def _rank(body: str, place: int) -> tuple[bool, bool, int]:
    tops = [m for m in modules(body) if m.name == TOP]
    top = best(tops) if tops else None
    return (top is None or top.has_body, top is None or top.closed, place)


def _best_block(blocks: list[str]) -> int | None:
    """The last that defines TopModule with a body; else the last whole one; else the last."""
    tops = [i for i, block in enumerate(blocks) if defines(block)]
    return max(tops, key=lambda i: _rank(blocks[i], i)) if tops else None


def _is_whole(block: str) -> bool:
    return _rank(block, 0)[:2] == (True, True)


def _code(fence: Fence) -> str:
    """A block's text; without the prose behind its code where no line of its own closes it."""
    code = fence.body if fence.closed else code_in(fence.body)
    return code if defines(code) else fence.body


def _unwrapped(fence: Fence) -> list[Fence]:
    """The fences within a fence (a whole Markdown answer in one), where a design stands in them."""
    inner = fences(fence.body)
    return inner if any(defines(f.body) for f in inner) else [fence]


def _whole(text: str, unmarked: bool) -> str | None:
    """The code that defines a TopModule of its own."""
    found = [inner for fence in fences(text) for inner in _unwrapped(fence)]
    bare = code_in(outside(text, fences(text)))
    blocks = [_code(fence) for fence in found if not fence.foreign]
    if unmarked and defines(bare):
        blocks = [block for block in blocks if not defines(block)]
    places = (blocks, [*blocks, bare], [_code(fence) for fence in found])
    for candidates, enough in (*((place, _is_whole) for place in places[:2]), *((place, defines) for place in places)):
        chosen = _best_block(candidates)
        if chosen is not None and enough(candidates[chosen]):
            others = [b for i, b in enumerate(candidates) if i != chosen]
            return reached(_with_helpers(candidates[chosen], others[:chosen], [*others[chosen:], bare]))
    return None


def _continuing(text: str) -> str | None:
    """A body that continues a given header: up to its first `endmodule`, with the helper modules that follow."""
    end = first_end(text)
    if end is None:
        return None if modules(text) else text
    rest = code_in(text[end:])
    for module in reversed(modules(rest)):
        if module.name == TOP:  # of the next problem, which a model may put to itself
            rest = rest[: module.start] + rest[module.end :]
    return text[:end] + "\n" + rest


def _body(text: str, found: list[Fence]) -> str | None:
    """The body in an answer to code completion: what stands before any fence if it ends there, else a fence's."""
    lead = text[: found[0].start] if found else text
    if first_end(lead) is not None or not found:
        return _continuing(lead)
    bodies = [b for fence in found if not fence.foreign and (b := _continuing(fence.body)) and _CODE.search(b)]
    ended = [body for body in bodies if first_end(body) is not None]
    return (ended[-1:] or bodies[:1] or [None])[0]


def _join(interface: str, body: str) -> str:
    """Continue a given module header with a completion's body."""
    joined = interface.rstrip() + "\n" + body.rstrip() + "\n"
    return reached(joined if first_end(body) is not None else joined + "endmodule\n")


def _runs_on(text: str, found: list[Fence]) -> bool:
    """Whether the text begins as a body, before any module of its own (a model that writes on after its answer)."""
    return first_end(text[: found[0].start] if found else text) is not None


def _read(text: str, said: Answer, interface: str) -> str | None:
    found = fences(text)
    if interface and _runs_on(text, found):
        body = _body(text, found)
        return _join(interface, body) if body is not None else None
    code = _whole(text, said.unmarked)
    if code is not None or not interface or said.cut_off:
        return code
    body = _body(text, found)
    return _join(interface, body) if body and body.strip() else None


def _between_marks(text: str) -> list[str]:
    """What stands between each [BEGIN] and the [DONE] that ends it, or the text's end."""
    found, begun = list[str](), None
    for mark in _BEGIN_OR_DONE.finditer(text):
        if begun is None:
            begun = mark.end() if mark["begin"] else None
        elif not mark["begin"]:
            found.append(text[begun : mark.start()])
            begun = None
    return found if begun is None else [*found, text[begun:]]


def _marked(texts: Iterable[str]) -> str | None:
    """Of the texts between [BEGIN] and [DONE] the last with a whole TopModule, else with any: all of it, or a fence."""
    found = [_whole(text, False) if fences(text) else reached(text) if defines(text) else None for text in texts]
    codes = [code for code in found if code is not None]
    return next((code for code in reversed(codes) if _is_whole(code)), codes[-1] if codes else None)


def extract(completion: str, interface: str) -> str | None:
    """The Verilog to grade, or None where the answer defines no TopModule (and continues no given header)."""
    said = answer(clean(completion))
    begun = _BEGIN.search(said.text)
    if interface and begun and first_end(said.text[: begun.start()]) is not None:
        return _read(said.text, said, interface)
    marked = _between_marks(said.text)
    code = _marked(marked)
    if code is None and marked and interface:
        code = _read(marked[-1], said, interface)
    if code is not None and _is_whole(code):
        return code
    around = _read(said.text, said, interface)
    return around if code is None or (around is not None and _is_whole(around)) else code
