"""What a model thought aloud, taken off what it answered: the marks of reasoning models, closed, stray or left open.

A mark inside a comment, a string, quotes or backticks is text that speaks of the mark. A thought that was never closed
was cut off: nothing in it is an answer.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass

_TAG = (
    r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|reasoning_scratchpad)(?::\w+)?"
)
_MARK = re.compile(
    rf"(?P<open><(?P<tag>{_TAG})>|(?<![\w\])$])\[THINK\]|◁think▷|<\|channel>(?:thought\b|analysis\b)?[ \t]*"
    r"|<\|open\|>think<\|sep\|>|<\|(?:START_THINKING|inner_prefix|begin_of_thought)\|>|<unused94>(?:thought\b)?)"
    rf"|(?P<close></{_TAG}>|\[/THINK\]|◁/think▷|<channel\|>|<\|close\|>think<\|sep\|>"
    r"|<\|(?:END_THINKING|inner_suffix|end_of_thought)\|>|<unused95>)",
    re.IGNORECASE,
)
"""Opening and closing marks: <think> (DeepSeek, Qwen, GLM, Kimi K2) and its kin, <seed:think> (Seed-OSS), [THINK]
(Magistral), <|channel>thought ... <channel|> (Gemma 4), triangles (Kimi-VL, Kimi-Dev), <|open|>think<|sep|> (Kimi K3),
Command A's, Apertus's, MedGemma's."""
_HARMONY = re.compile(r"<\|channel\|>[ \t]*(?P<channel>\w++)(?:(?!<\|message\|>)[^\n]){0,200}?\s*+<\|message\|>")
_HARMONY_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_HARMONY_BARE = re.compile(r"\Aanalysis(?=[A-Z\"'])(?:.*assistantfinal)?", re.DOTALL)
"""The same where the server has dropped the special tokens: `analysisWe need ...assistantfinalHere is ...`."""
_BARE_THOUGHT = re.compile(r"\A\s*thought[ \t]*\n")
"""Gemma 4's channel where the server has dropped its marks: where the thought ends is not said."""
_NEAR = 2000
"""Characters around a mark that are looked at."""
_CODE = re.compile(r"\bmodule\b|```|\bassign\b|\[BEGIN\]|\balways")
_MODULE = re.compile(r"^[ \t]*module\s+\w++\s*+[(#;]|(?P<end>endmodule)", re.MULTILINE)
_WRAPPED = re.compile(
    r"\A(?:\s*(?:<answer>|<\|open\|>response<\|sep\|>|<\|(?:START_RESPONSE|begin_of_solution)\|>|<response>))+",
    re.IGNORECASE,
)
_ENDING = re.compile(
    r"(?:</answer>|<\|close\|>response<\|sep\|>|<\|(?:END_RESPONSE|end_of_solution)\|>|</response>"
    r"|<\|(?:end|return|im_end|eot_id|endoftext|end_of_text)\|>|<turn\|>|<end_of_turn>|<eos>|</s>)\Z",
    re.IGNORECASE,
)
_LONGEST_ENDING = 32


@dataclass(frozen=True)
class Answer:
    """What remains to be read. `cut_off`: a thought was left open; `unmarked`: a thought may still stand before it."""

    text: str
    cut_off: bool = False
    unmarked: bool = False


def _spoken_of(text: str, start: int, end: int) -> bool:
    """Whether what stands here is within a comment, a string, quotes or backticks of its own line."""
    before, after = text[max(0, start - _NEAR) : start], text[end : end + _NEAR]
    opened, closed = before.rfind("/*"), after.find("*/")
    if opened >= 0 and closed >= 0 and not re.search(r"\*/|\n\n", before[opened:]) and "/*" not in after[:closed]:
        return True
    before, after = before[before.rfind("\n") + 1 :], after.partition("\n")[0]
    if re.search(r"(?<!:)//", before) or (before.count('"') % 2 and '"' in after):
        return True
    return bool(before.count("`") % 2 and "`" in after)


def _close(marks: list[re.Match[str]], first: int) -> re.Match[str] | None:
    """Which of the marks closes the thought that mark `first` opens: its pair, nested ones passed over."""
    depth, best = 1, None
    for mark in (marks[i] for i in range(first + 1, len(marks))):
        if mark["close"]:
            depth, best = depth - 1, mark
        elif best is not None:
            break
        else:
            depth += 1
        if depth == 0:
            break
    return best


def _open_modules(text: str) -> list[tuple[int, int]]:
    """(start, end) of each stretch from a module's header to its `endmodule`; none where that is not there."""
    found, begun = list[tuple[int, int]](), None
    for word in _MODULE.finditer(text):
        if not word["end"]:
            begun = word.end()
        elif begun is not None:
            found.append((begun, word.start()))
            begun = None
    return found


def _unmarked(text: str) -> Answer:
    """The text without its thoughts, whatever family's marks they stand between."""
    found = list(_MARK.finditer(text))
    marks = [m for m in found if not _spoken_of(text, m.start(), m.end())]
    said, at, cut, thought = list[str](), 0, False, ""
    code = max((m.start() for m in _CODE.finditer(text)), default=-1)
    last = next((m for m in reversed(found) if m["close"]), None)
    modules = _open_modules(text) if marks else []
    for i, mark in enumerate(marks):
        if mark.start() < at:
            continue
        if mark["open"]:
            close = _close(marks, i) or last if last and mark.start() < last.start() else None
            place = bisect_left(modules, (mark.start(), 0)) - 1
            if close is None and place >= 0 and mark.start() < modules[place][1]:
                continue
            said.append(text[at : mark.start()])
            cut = close is None
            thought = text[mark.end() : close.start() if close else len(text)]
            at = close.end() if close else len(text)
        else:
            said.append(text[at : mark.start()])
            if not thought:
                thought = "".join(said)
                said = [] if code > mark.end() else said
            said.append("\n")
            at = mark.end()
    rest = "".join([*said, text[at:]])
    if not rest.strip() and not cut:
        return Answer(thought)
    return Answer(rest, cut_off=cut)


def _unwrapped(text: str) -> str:
    """The text without the marks of an answer's two ends."""
    start = found.end() if (found := _WRAPPED.match(text)) else 0
    kept = end = len(text)
    while True:
        while end > start and text[end - 1].isspace():
            end -= 1
        ending = _ENDING.search(text, max(start, end - _LONGEST_ENDING), end)
        if ending is None:
            return text[start:kept]
        kept = end = ending.start()


def _harmony(text: str) -> Answer | None:
    """The last message of the `final` channel; None where the text has no channels."""
    messages = [m for m in _HARMONY.finditer(text) if not _spoken_of(text, m.start(), m.end())]
    if not messages:
        return None
    for message in reversed(messages):
        if message["channel"].lower() == "final":
            end = _HARMONY_END.search(text, message.end())
            return Answer(text[message.end() : end.start() if end else len(text)])
    return Answer("", cut_off=True)


def answer(text: str) -> Answer:
    """What the model answered, without what it thought."""
    found = _harmony(text)
    if found is None:
        bare = _HARMONY_BARE.match(text)
        if bare:
            cut = not bare.group().endswith("assistantfinal")
            found = Answer("" if cut else text[bare.end() :], cut_off=cut)
        elif _BARE_THOUGHT.match(text):
            found = Answer(_BARE_THOUGHT.sub("", text), unmarked=True)
        else:
            found = _unmarked(text)
    return Answer(_unwrapped(found.text), found.cut_off, found.unmarked)
