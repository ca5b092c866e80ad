"""From what a model said to the Verilog it meant: reasoning dropped, the right fence chosen, a given header joined."""

import re

TOP = "TopModule"

_THINK = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_UNCLOSED_THINK = re.compile(r"<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([^\n`]*)$", re.MULTILINE)
_OFFICIAL = re.compile(r"^[ \t]*\[BEGIN\](.*?)(?:\[DONE\]|\Z)", re.MULTILINE | re.DOTALL)
_LANGUAGES = {"", "verilog", "systemverilog", "sv", "v", "system-verilog", "system_verilog", "vlog"}
_MODULE = re.compile(r"^[ \t]*(?:module|macromodule)\b", re.MULTILINE)
_END = re.compile(r"\bendmodule\b(?:[ \t]*:[ \t]*\w+)?")
_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def without_comments(text: str) -> str:
    """The text with comments and strings blanked, every character that remains at its place."""
    return _COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def defines(text: str, module: str) -> bool:
    """Whether `text` defines `module`, outside comments and strings."""
    return bool(re.search(rf"\b(?:module|macromodule)\s+(?:automatic\s+|static\s+)?{module}\b", without_comments(text)))


def _answer(text: str) -> str:
    """Drop the reasoning; an unclosed one is dropped too unless nothing would remain."""
    text = _THINK.sub("", text)
    rest = _UNCLOSED_THINK.sub("", text)
    return rest if rest.strip() else text


def _fences(text: str) -> list[tuple[str, str]]:
    """(language, body) of every fenced block; the last may lack its end."""
    blocks, opened = [], None
    for mark in _FENCE.finditer(text):
        ticks, info = mark.group(1), mark.group(2).strip()
        if opened is None:
            language = info.split()[0].strip("{}.").lower() if info else ""
            opened = (ticks, language, mark.end() + 1)
        elif not info and ticks[0] == opened[0][0] and len(ticks) >= len(opened[0]):
            blocks.append((opened[1], text[opened[2] : mark.start()]))
            opened = None
    if opened is not None:
        blocks.append((opened[1], text[opened[2] :]))
    return blocks


def _bare(text: str) -> str:
    """Modules that stand in prose without a fence: from the first `module` line to the last `endmodule`."""
    plain = without_comments(text)
    start, ends = _MODULE.search(plain), list(_END.finditer(plain))
    if not start:
        return text
    return text[start.start() : ends[-1].end() if ends and ends[-1].end() > start.start() else len(text)] + "\n"


def _with_helpers(chosen: str, blocks: list[str]) -> str:
    """The chosen block, after those earlier blocks that define modules it names but does not define."""
    helpers = []
    for block in reversed(blocks):
        for name in re.findall(r"\bmodule\s+(\w+)", without_comments(block)):
            used = re.search(rf"\b{name}\b", without_comments(chosen))
            if name != TOP and used and not defines(chosen, name) and not defines("".join(helpers), name):
                helpers.append(block)
                break
    return "".join([*reversed(helpers), chosen])


def _choose(text: str) -> str:
    blocks = [(language, body) for language, body in _fences(text) if language in _LANGUAGES and body.strip()]
    if not blocks:
        return _bare(text) if _MODULE.search(without_comments(text)) else text
    bodies = [body for _, body in blocks]
    for i in range(len(bodies) - 1, -1, -1):
        if defines(bodies[i], TOP):
            return _with_helpers(bodies[i], [b for b in bodies[:i] if not defines(b, TOP)])
    outside = _bare(text)
    return outside if defines(outside, TOP) and "```" not in outside else bodies[-1]


def _join(interface: str, body: str) -> str:
    """Continue a given module header with a completion's body."""
    closed = _END.search(without_comments(body))
    return interface.rstrip() + "\n" + body.rstrip() + ("\n" if closed else "\nendmodule\n")


def extract(completion: str, interface: str = "") -> str | None:
    """The Verilog to grade, or None where the completion defines no TopModule (and continues no given header)."""
    text = completion.replace("\r\n", "\n")
    for body in reversed(_OFFICIAL.findall(_answer(text))):  # what VerilogEval's own prompts ask for
        code = _choose(body)
        if defines(code, TOP):
            return code
    code = _choose(_answer(text))
    if not defines(code, TOP):
        whole = _choose(text)
        if defines(whole, TOP):
            code = whole
    if defines(code, TOP):
        return code
    if interface and code.strip() and not _MODULE.search(without_comments(code)):
        return _join(interface, code)
    return None
