"""A tokenizer's chat template, applied: which one it is, its text on a pinned day, and whatever is wrong with it.

`TemplateFault` is a template that renders no conversation, whatever the row; any other failure is the row's.
"""

import datetime
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import Template
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from models.text.bounds import Budget, Endless, size_of
from models.text.day import DAY
from models.text.sandbox import Sandbox

Message = dict[str, Any]
"""`role` and `content`, both text; perhaps `tool_calls`, `tool_call_id`, `name`, `reasoning_content`. An answer whose
`learn` is False is context."""
LEARN = "learn"
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
_PUT = "put another chat_template.jinja into the model's folder"


class TemplateFault(UserError):
    """The template itself is at fault, or there is none."""


class ChatTemplate:
    """The template of one tokenizer, compiled once, on one day."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, day: str):
        self.source, self.sandbox = tokenizer.chat_template, Sandbox(datetime.date.fromisoformat(day))
        self.day, self.where = day, _place(tokenizer)
        self.names = dict(tokenizer.special_tokens_map)
        self._compiled: dict[str, Template] = {}

    def text(self, tools: Sequence[Any] | None = None) -> str:
        """The source that a conversation is rendered by; models may have one for tools."""
        if not self.source:
            fix = "add chat_template.jinja to the model's folder"
            raise TemplateFault("the tokenizer has no chat template", where=self.where, fix=fix)
        if isinstance(self.source, str):
            return self.source
        name = "tool_use" if tools and "tool_use" in self.source else "default"
        if name not in self.source:
            have = ", ".join(sorted(self.source))
            what = f"the model has chat templates {have} and none named default"
            raise TemplateFault(what, where=self.where, fix="name one of them default, or write chat_template.jinja")
        return self.source[name]

    def _template(self, text: str) -> Template:
        if text not in self._compiled:
            try:
                self._compiled[text] = self.sandbox.from_string(text)
            except TemplateSyntaxError as error:
                where = f"{self.where}:{error.lineno}"
                what = f"the chat template is malformed: {error.message}"
                raise TemplateFault(what, where=where, fix=f"mend it, or {_PUT}") from None
            except Exception as error:  # of the constants that the compiler works out
                what = f"the chat template is malformed: {_said(error)}"
                raise TemplateFault(what, where=self.where, fix=f"mend it, or {_PUT}") from None
        return self._compiled[text]

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None, generate: bool) -> str:
        """Raises UserError where the template refuses the conversation or fails on it."""
        if not messages:
            raise UserError("a conversation without messages")
        shown = [_shown(message) for message in messages]
        size = sum(size_of(part) for message in shown for part in message.values()) + (size_of(tools) if tools else 0)
        budget = self.sandbox.budget = Budget(len(messages), size)
        template = self._template(self.text(tools))
        try:
            parts = list(
                template.generate(
                    **self.names, messages=shown, tools=tools or None, documents=None, add_generation_prompt=generate
                )
            )
            budget.fits(sum(map(len, parts)))
            return "".join(parts)
        except (Endless, RecursionError, MemoryError) as error:
            what = f"the chat template does not end: {_said(error)}"
            raise TemplateFault(what, where=self.where, fix=f"bound its loops, or {_PUT}") from None
        except TemplateError as error:
            what = f"the chat template refuses the conversation: {error}"
            raise UserError(what, fix="change the row's roles, or the template") from None
        except Exception as error:  # whatever a template's own code comes to
            what = f"the chat template fails: {_said(error)}"
            raise UserError(what, fix=f"mend the template ({self.where}) or the row") from None


def _said(error: BaseException) -> str:
    first = str(error).strip().split("\n")[0]
    return first if isinstance(error, Endless) else f"{type(error).__name__}: {first}"


def _place(tokenizer: PreTrainedTokenizerFast) -> str:
    folder = Path(tokenizer.name_or_path or ".")
    names = ("chat_template.jinja", "tokenizer_config.json")
    return next((str(folder / name) for name in names if (folder / name).is_file()), str(folder))


def _shown(message: Message) -> Message:
    """What the template sees; what was thought under each of the names that templates know it by."""
    seen = {key: value for key, value in message.items() if value is not None and key != LEARN}
    thought = next((seen[name] for name in _THOUGHTS if name in seen), None)
    return seen if thought is None else {"thinking": thought, **seen, "reasoning_content": thought}


_KNOWN: WeakKeyDictionary[PreTrainedTokenizerFast, ChatTemplate] = WeakKeyDictionary()


def template_of(tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
    known = _KNOWN.get(tokenizer)
    if known is None or known.source is not tokenizer.chat_template:
        known = _KNOWN[tokenizer] = ChatTemplate(tokenizer, DAY if known is None else known.day)
    return known


def pin_day(tokenizer: PreTrainedTokenizerFast, day: str) -> None:
    """From here on, the tokenizer's template is told that it is this day."""
    _KNOWN[tokenizer] = ChatTemplate(tokenizer, day)


def pinned_day(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The day that the template has printed, where it has asked for one."""
    known = template_of(tokenizer)
    return known.day if known.sandbox.dated else None


def template_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """sha256 over the chat template and the special tokens it can print; "" where there is no template."""
    if not tokenizer.chat_template:
        return ""
    content = [template_of(tokenizer).text(), dict(sorted(tokenizer.special_tokens_map.items()))]
    if isinstance(tokenizer.chat_template, dict):
        content.append(tokenizer.chat_template.get("tool_use"))
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
