"""The one function that renders a conversation to token ids and a loss mask, for training, serving and eval.

The tokenizer's own chat template renders the conversation; the mask comes from spans of the rendered string, found by
rendering prefixes, and the whole string is tokenised once. Message content is text and never a control token: where it
spells one, the row goes through a twin tokenizer that knows the control tokens under unguessable names only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from models.text.answers import Apply, shown, unread
from models.text.control_tokens import ControlTokens
from models.text.day import noted_day
from models.text.loss_mask import by_bytes, by_offsets
from models.text.template import Message, pin_day, template_of


@dataclass(frozen=True)
class Encoded:
    """`mask[t]` is True where token `ids[t]` belongs to an answer, its end-of-turn token included."""

    ids: list[int]
    mask: list[bool]
    text: str


@dataclass(frozen=True)
class Rendered:
    """The text the tokenizer sees, and the supervised [start, end) character spans in it.

    `rewritten`: the template shows one of these answers otherwise than it would as the last turn.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    guarded: bool = False
    rewritten: bool = False


@dataclass(frozen=True)
class Piece:
    """A stretch of the rendered text, for people: a control token, or text."""

    text: str
    supervised: bool
    control: bool


def load_tokenizer(path: str, day: str | None = None) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a local model folder; its template is told that it is `day`, or the one noted. Raises
    UserError where there is none, or it cannot be read."""
    if not (Path(path) / "tokenizer.json").is_file():
        raise UserError("no tokenizer.json here", where=path, fix="name a folder with a Hugging Face fast tokenizer")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the loader raises bare Exception for a broken file
        first = str(error).strip().split("\n")[0]
        raise UserError(f"the tokenizer cannot be read: {first}", where=path, fix="restore its files") from error
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if (told := day or noted_day(path)) is not None:
        pin_day(tokenizer, told)
    return tokenizer


_GUARDS: WeakKeyDictionary[PreTrainedTokenizerFast, ControlTokens] = WeakKeyDictionary()


def _guard(tokenizer: PreTrainedTokenizerFast) -> ControlTokens:
    if tokenizer not in _GUARDS:
        _GUARDS[tokenizer] = ControlTokens(tokenizer)
    return _GUARDS[tokenizer]


def markers(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """[ids] bool: the added tokens that show, control tokens for one."""
    return _guard(tokenizer).is_marker


def _texts(value: Any) -> Iterator[str]:
    """Every text that a message or a tool holds."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case dict() as one:
                waiting += [*one, *one.values()]
            case list() | tuple() as many:
                waiting += many
            case _:
                pass


def _hidden(guard: ControlTokens, value: Any) -> Any:
    """The same with control spellings under their secret names."""
    match value:
        case str():
            return guard.hide(value)
        case dict():
            return {_hidden(guard, key): _hidden(guard, one) for key, one in value.items()}
        case list() | tuple():
            return [_hidden(guard, one) for one in value]
        case _:
            return value


def _safe(guard: ControlTokens, messages: Sequence[Message], tools: Sequence[Any]) -> tuple[list[Message], Any, bool]:
    """Messages and tools as the template gets them, and whether they spelled a control token."""
    rich = bool(tools) or any(len(message) > 2 for message in messages)
    contents = _texts([list(messages), list(tools)]) if rich else (message["content"] for message in messages)
    if not guard.needed(contents):
        return list(messages), tools, False
    return [_hidden_turn(guard, message) for message in messages], _hidden(guard, tools), True


def _hidden_turn(guard: ControlTokens, message: Message) -> Message:
    """Keys and the role are the template's words, not content."""
    return {key: value if key == "role" else _hidden(guard, value) for key, value in message.items()}


def _apply(tokenizer: PreTrainedTokenizerFast, tools: Sequence[Any]) -> Apply:
    template = template_of(tokenizer)
    return lambda messages, generate: template.render(messages, tools, generate)


def render(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    tools: Sequence[Any] = (),
    last_only: bool = False,
) -> Rendered:
    """Render a conversation for training; raises UserError where the template refuses it or loses a part of it."""
    guard = _guard(tokenizer)
    safe, tools, guarded = _safe(guard, messages, tools)
    found = shown(_apply(tokenizer, tools), guard.spelled, safe, last_only)
    if not guarded:
        return Rendered(found.text, found.spans, rewritten=found.rewritten)
    text, named, moved, cut = found.text, "", [], 0
    for start, end in found.spans:
        named += guard.name_tokens(text[cut:start])
        begin = len(named)
        named += guard.name_tokens(text[start:end])
        moved.append((begin, len(named)))
        cut = end
    named += guard.name_tokens(text[cut:])
    return Rendered(_whole(guard, named), tuple(moved), guarded=True, rewritten=found.rewritten)


def _whole(guard: ControlTokens, text: str) -> str:
    if guard.nonce in guard.plain(text):
        what = "the chat template escapes or cuts a control token that the conversation spells"
        raise UserError(what, fix="leave the control token's name out of the row, or change the template")
    return text


def render_prompt(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], tools: Sequence[Any] = ()
) -> Rendered:
    """Render a conversation up to where the model answers."""
    guard = _guard(tokenizer)
    safe, tools, guarded = _safe(guard, messages, tools)
    text = _apply(tokenizer, tools)(safe, True)
    return Rendered(_whole(guard, guard.name_tokens(text)), (), guarded=True) if guarded else Rendered(text, ())


def not_shown(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[str]:
    """Keys of messages, and "tools", that make no difference to what the template shows."""
    found = unread(_apply(tokenizer, tools), messages)
    if tools and _apply(tokenizer, ())(messages, False) == _apply(tokenizer, tools)(messages, False):
        found.append("tools")
    return found


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


def prompt_ids(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
    """Ids of the prompt that asks the model for the next answer."""
    ((ids, _),) = tokenize(tokenizer, [render_prompt(tokenizer, messages, tools)])
    return ids.tolist()
