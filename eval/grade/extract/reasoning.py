"""What a model thought aloud, taken off what it answered: the marks of reasoning models, closed, stray or left open.

A mark inside a comment, a string, quotes or backticks is text that speaks of the mark. A thought that was never closed
was cut off: nothing in it is an answer.
"""

import re
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
_HARMONY = re.compile(r"<\|channel\|>[ \t]*(?P<channel>\w+)(?:(?!<\|message\|>)[^\n]){0,200}?\s*<\|message\|>")
_HARMONY_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_HARMONY_BARE = re.compile(r"\Aanalysis(?=[A-Z\"'])(?:.*assistantfinal)?", re.DOTALL)
"""The same where the server has dropped the special tokens: `analysisWe need ...assistantfinalHere is ...`."""
_BARE_THOUGHT = re.compile(r"\A\s*thought[ \t]*\n")
"""Gemma 4's channel where the server has dropped its marks: where the thought ends is not said."""
_NEAR = 2000
"""Characters around a mark that are looked at."""
_CODE = re.compile(r"\bmodule\b|```|\bassign\b|\[BEGIN\]|\balways")
_WRAPPER = re.compile(
    r"\A(?:\s*(?:<answer>|<\|open\|>response<\|sep\|>|<\|(?:START_RESPONSE|begin_of_solution)\|>|<response>))+"
    r"|(?:(?:</answer>|<\|close\|>response<\|sep\|>|<\|(?:END_RESPONSE|end_of_solution)\|>|</response>"
    r"|<\|(?:end|return|im_end|eot_id|endoftext|end_of_text)\|>|<turn\|>|<end_of_turn>|<eos>|</s>)\s*)+\Z",
    re.IGNORECASE,
)


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


def _close(text: str, marks: list[re.Match[str]], first: int) -> int | None:
    """Which of the marks closes the thought that mark `first` opens: its pair, nested ones passed over."""
    depth, best = 1, None
    for i in range(first + 1, len(marks)):
        if _spoken_of(text, marks[i].start(), marks[i].end()):
            continue
        if marks[i]["close"]:
            depth, best = depth - 1, i
        elif best is not None:
            break
        else:
            depth += 1
        if depth == 0:
            break
    if best is not None:
        return best
    return next((i for i in range(len(marks) - 1, first, -1) if marks[i]["close"]), None)


def _in_code(text: str, mark: re.Match[str]) -> bool:
    """Whether a module is open around the mark."""
    begun = list(re.finditer(r"^[ \t]*module\s+\w+\s*[(#;]", text[: mark.start()], re.MULTILINE))
    return (
        bool(begun) and "endmodule" not in text[begun[-1].start() : mark.start()] and "endmodule" in text[mark.end() :]
    )


def _unmarked(text: str) -> Answer:
    """The text without its thoughts, whatever family's marks they stand between."""
    marks = list(_MARK.finditer(text))
    said, at, i, cut, thought = list[str](), 0, 0, False, ""
    code = max((m.start() for m in _CODE.finditer(text)), default=-1)
    while i < len(marks):
        mark, i = marks[i], i + 1
        if mark.start() < at or _spoken_of(text, mark.start(), mark.end()):
            continue
        if mark["open"]:
            close = _close(text, marks, i - 1)
            if close is None and _in_code(text, mark):
                continue
            said.append(text[at : mark.start()])
            cut = close is None
            thought = text[mark.end() : len(text) if close is None else marks[close].start()]
            at, i = (len(text), len(marks)) if close is None else (marks[close].end(), close + 1)
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
    return Answer(_WRAPPER.sub("", found.text), found.cut_off, found.unmarked)
