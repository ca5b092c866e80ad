"""The one function that renders a conversation to token ids and a loss mask, for training, serving and eval.

The tokenizer's own chat template renders the conversation; the mask comes from spans of the rendered string, found by
rendering prefixes, and the whole string is tokenised once. Message content is text and never a control token: where it
spells one, the row goes through a twin tokenizer that knows the control tokens under unguessable names only.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from models.text.control_tokens import ControlTokens
from models.text.loss_mask import by_bytes, by_offsets

Message = dict[str, str]
_HOLE = "\ufdd0hole\ufdd1"
"""Stands in for an answer to find where the template puts it; noncharacters, so no real text holds it."""


@dataclass(frozen=True)
class Encoded:
    """`mask[t]` is True where token `ids[t]` belongs to an answer, its end-of-turn token included."""

    ids: list[int]
    mask: list[bool]
    text: str


@dataclass(frozen=True)
class Rendered:
    """The text the tokenizer sees, and the supervised [start, end) character spans in it."""

    text: str
    spans: tuple[tuple[int, int], ...]
    guarded: bool = False


@dataclass(frozen=True)
class Piece:
    """A stretch of the rendered text, for people: a control token, or text."""

    text: str
    supervised: bool
    control: bool


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a local model folder."""
    if not (Path(path) / "tokenizer.json").is_file():
        raise UserError("no tokenizer.json here", where=path, fix="name a folder with a Hugging Face fast tokenizer")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the loader raises bare Exception for a broken file
        first = str(error).strip().split("\n")[0]
        raise UserError(f"the tokenizer cannot be read: {first}", where=path, fix="restore its files") from error
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def template_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """sha256 over the chat template and the special tokens it can print; "" where there is no template."""
    if not tokenizer.chat_template:
        return ""
    content = [tokenizer.get_chat_template(), dict(sorted(tokenizer.special_tokens_map.items()))]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


_GUARDS: WeakKeyDictionary[PreTrainedTokenizerFast, ControlTokens] = WeakKeyDictionary()


def _guard(tokenizer: PreTrainedTokenizerFast) -> ControlTokens:
    if tokenizer not in _GUARDS:
        _GUARDS[tokenizer] = ControlTokens(tokenizer)
    return _GUARDS[tokenizer]


def _apply(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], generate: bool = False) -> str:
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template", fix="add chat_template.jinja to the model's folder")
    if not messages:
        raise UserError("a conversation without messages")
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generate))
    except TemplateError as error:
        raise UserError(f"the chat template refuses the conversation: {error}", fix="change the row's roles") from error


def _around(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], i: int, generate: bool) -> tuple[str, str]:
    """The rendered text before and after the content of message `i`."""
    probed = [*messages[:i], {**messages[i], "content": _HOLE}, *messages[i + 1 :]]
    before, hole, after = _apply(tokenizer, probed, generate).partition(_HOLE)
    if not hole:
        raise UserError("the chat template leaves out an assistant turn", fix="change the row or the template")
    return before, after


def _answer(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> tuple[str, int]:
    """Render a conversation that ends with an answer: the text, and where the answer begins in it."""
    full = _apply(tokenizer, messages)
    if len(messages) == 1:
        return full, len(_around(tokenizer, messages, 0, False)[0])
    prompt = _apply(tokenizer, messages[:-1], generate=True)
    if full.startswith(prompt):
        return full, len(prompt)
    # What the generation prompt inserts before an answer (an empty thought) belongs to training too.
    return prompt + full[len(_around(tokenizer, messages, len(messages) - 1, False)[0]) :], len(prompt)


def _earlier(
    tokenizer: PreTrainedTokenizerFast,
    guard: ControlTokens,
    text: str,
    messages: Sequence[Message],
    i: int,
    generate: bool,
) -> tuple[int, int]:
    """The span of assistant turn `i` in `text`, which starts with `messages` rendered."""
    upto = _apply(tokenizer, messages[: i + 1])
    prompt = _apply(tokenizer, messages[:i], generate=True) if i else None
    if prompt is not None and text.startswith(upto) and upto.startswith(prompt):
        return len(prompt), len(upto)
    before, after = _around(tokenizer, messages, i, generate)
    base = _apply(tokenizer, messages, generate)
    if not (text.startswith(base) and base.startswith(before) and base.endswith(after)):
        raise UserError("the chat template rewrites earlier turns", fix="split the row into single-turn rows")
    end = len(base) - len(after)
    turn_end = guard.spelled.match(base, end)
    return len(before), turn_end.end() if turn_end else end


def _shown(
    tokenizer: PreTrainedTokenizerFast, guard: ControlTokens, messages: Sequence[Message]
) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as the model sees it, and the spans from the end of each answer's prompt to its turn's end."""
    answered = messages[-1]["role"] == "assistant" if messages else False
    text, start = _answer(tokenizer, messages) if answered else (_apply(tokenizer, messages), 0)
    for message in messages:
        if message["role"] == "system" and message["content"].strip() not in text:
            raise UserError("the chat template drops the system turn", fix="move its text into the user turn")
    history = messages[:-1] if answered else messages
    turns = [i for i, message in enumerate(history) if message["role"] == "assistant"]
    spans = [_earlier(tokenizer, guard, text, history, i, answered) for i in turns]
    return text, [*spans, (start, len(text))] if answered else spans


def render(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> Rendered:
    """Render a conversation for training; raises UserError where the template refuses it or loses a part of it."""
    guard = _guard(tokenizer)
    if not guard.needed(message["content"] for message in messages):
        text, spans = _shown(tokenizer, guard, messages)
        return Rendered(text, tuple(spans))
    hidden = [{**message, "content": guard.hide(message["content"])} for message in messages]
    text, spans = _shown(tokenizer, guard, hidden)
    named, moved, cut = "", [], 0
    for start, end in spans:
        named += guard.name_tokens(text[cut:start])
        begin = len(named)
        named += guard.name_tokens(text[start:end])
        moved.append((begin, len(named)))
        cut = end
    return Rendered(named + guard.name_tokens(text[cut:]), tuple(moved), guarded=True)


def render_prompt(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> Rendered:
    """Render a conversation up to where the model answers."""
    guard = _guard(tokenizer)
    if not guard.needed(message["content"] for message in messages):
        return Rendered(_apply(tokenizer, messages, generate=True), ())
    hidden = [{**message, "content": guard.hide(message["content"])} for message in messages]
    return Rendered(guard.name_tokens(_apply(tokenizer, hidden, generate=True)), (), guarded=True)


def render_text(tokenizer: PreTrainedTokenizerFast, text: str) -> Rendered:
    """A plain document, every character supervised."""
    return Rendered(text, ((0, len(text)),), guarded=_guard(tokenizer).needed([text]))


def _encoded(
    tokenizer: PreTrainedTokenizerFast, rendered: Sequence[Rendered], guarded: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and masks by the tokenizer's character offsets; `guarded`: by the twin that reads control words as text."""
    guard = _guard(tokenizer)
    backend, table = guard.twin if guarded else (guard.backend, None)
    found = []
    encodings = backend.encode_batch([one.text for one in rendered], add_special_tokens=False)
    for one, encoding in zip(rendered, encodings, strict=True):
        ids = np.asarray(encoding.ids, np.int32)
        ids = ids if table is None else table[ids]
        found.append((ids, by_offsets(encoding, one.text, one.spans, ids, guard.is_marker)))
    return found


def tokenize(tokenizer: PreTrainedTokenizerFast, rendered: Sequence[Rendered]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids (int32) and mask (bool) of each text; tokenised in parallel, the interpreter lock released."""
    guard = _guard(tokenizer)
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    plain = [i for i, one in enumerate(rendered) if not one.guarded] if guard.byte_counts.counts is not None else []
    encodings = guard.backend.encode_batch_fast([rendered[i].text for i in plain], add_special_tokens=False)
    for i, encoding in zip(plain, encodings, strict=True):
        ids = np.asarray(encoding.ids, np.int32)
        mask = by_bytes(rendered[i].text, rendered[i].spans, ids, guard.byte_counts, guard.is_marker)
        if mask is not None:
            found[i] = (ids, mask)
    for guarded in (False, True):
        indices = [i for i, one in enumerate(rendered) if i not in found and one.guarded == guarded]
        if indices:
            found.update(zip(indices, _encoded(tokenizer, [rendered[i] for i in indices], guarded), strict=True))
    return [found[i] for i in range(len(rendered))]


def pieces(tokenizer: PreTrainedTokenizerFast, rendered: Rendered) -> list[Piece]:
    """The text in pieces, each of one kind: a control token, or text that is supervised or is not."""
    guard = _guard(tokenizer)
    backend, table = guard.twin if rendered.guarded else (guard.backend, None)
    encoding = backend.encode(rendered.text, add_special_tokens=False)
    ids = np.asarray(encoding.ids, np.int32)
    ids = ids if table is None else table[ids]
    mask = by_offsets(encoding, rendered.text, rendered.spans, ids, guard.is_marker)
    starts = [offset[0] for offset in encoding.offsets]
    kinds = [(bool(supervised), int(i) if i in guard.control else -1) for supervised, i in zip(mask, ids, strict=True)]
    cuts = [t for t in range(len(ids)) if t == 0 or kinds[t] != kinds[t - 1] or kinds[t][1] >= 0]
    ends = [*(starts[t] for t in cuts[1:]), len(rendered.text)]
    return [
        Piece(guard.plain(rendered.text[starts[t] : end]), kinds[t][0], kinds[t][1] >= 0)
        for t, end in zip(cuts, ends, strict=True)
    ]


def encode(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> Encoded:
    """Ids and mask of one conversation; `ids` starts with `prompt_ids` of the messages before the last answer."""
    rendered = render(tokenizer, messages)
    ((ids, mask),) = tokenize(tokenizer, [rendered])
    return Encoded(ids.tolist(), mask.tolist(), _guard(tokenizer).plain(rendered.text))


def prompt_ids(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> list[int]:
    """Ids of the prompt that asks the model for the next answer."""
    ((ids, _),) = tokenize(tokenizer, [render_prompt(tokenizer, messages)])
    return ids.tolist()
