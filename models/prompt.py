"""The one function that renders a conversation to token ids and a loss mask, for training, serving and eval.

The tokenizer's own chat template renders the conversation; the mask comes from spans of the rendered string, found by
rendering prefixes, and the whole string is tokenised once. Message content is text and never a control token: where it
spells one, the row goes through a twin tokenizer that knows the control tokens under unguessable names only.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from jinja2.exceptions import TemplateError
from tokenizers import AddedToken, Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from common.errors import UserError

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


def _any_of(words: Iterable[str]) -> str:
    """A pattern that matches any of the words, longest first, branching by letter: a vocabulary may list thousands."""
    heads: dict[str, list[str]] = {}
    for word in words:
        heads.setdefault(word[:1], []).append(word[1:])
    ends = "" in heads
    heads.pop("", None)
    branches = [re.escape(letter) + (_any_of(tails) if tails != [""] else "") for letter, tails in heads.items()]
    return f"(?:{'|'.join(branches)}){'?' if ends else ''}" if branches else ""


class _Guard:
    """What keeps content from turning into control tokens, for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.backend = tokenizer.backend_tokenizer
        added = self.backend.get_added_tokens_decoder()
        self.special = {token.content: (i, token) for i, token in added.items() if token.special}
        self.spelled = re.compile(_any_of(self.special)) if self.special else re.compile(r"(?!)")
        self.normalized = any(token.normalized for _, token in self.special.values())
        self.nonce = secrets.token_hex(8)
        words = list(self.special)
        self.content_names = {word: f"\ufdd0{self.nonce}c{i}\ufdd1" for i, word in enumerate(words)}
        self.token_names = {word: f"\ufdd0{self.nonce}t{i}\ufdd1" for i, word in enumerate(words)}
        self.words = {name: word for names in (self.content_names, self.token_names) for word, name in names.items()}
        self.in_content = re.compile(f"\ufdd0{self.nonce}c\\d+\ufdd1")
        self.named = re.compile(f"\ufdd0{self.nonce}[ct]\\d+\ufdd1")
        self.is_marker = np.zeros(max(self.backend.get_vocab().values()) + 1, bool)
        self.is_marker[[i for i, token in added.items() if not token.content.isspace()]] = True

    def needed(self, contents: Iterable[str]) -> bool:
        return self.normalized or any(self.spelled.search(content) for content in contents)

    def hide(self, content: str) -> str:
        return self.spelled.sub(lambda m: self.content_names[m[0]], content)

    def name_tokens(self, rendered: str) -> str:
        """The template's control tokens get their secret names; what content spelled is put back, as text."""
        named = self.spelled.sub(lambda m: self.token_names[m[0]], rendered)
        return self.in_content.sub(lambda m: self.words[m[0]], named)

    def plain(self, text: str) -> str:
        return self.named.sub(lambda m: self.words[m[0]], text)

    @cached_property
    def twin(self) -> tuple[Tokenizer, np.ndarray]:
        """A copy that reads control spellings as text, and the table from its ids to the original's."""
        twin = Tokenizer.from_str(self.backend.to_str())
        twin.no_truncation()
        twin.no_padding()
        twin.encode_special_tokens = True
        for word, (_, token) in self.special.items():
            secret = AddedToken(
                self.token_names[word],
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=False,
                special=False,
            )
            twin.add_tokens([secret])
        vocabulary = twin.get_vocab()
        table = np.arange(max(vocabulary.values()) + 1, dtype=np.int32)
        for word, (original, _) in self.special.items():
            table[vocabulary[self.token_names[word]]] = original
        return twin, table


_GUARDS: WeakKeyDictionary[PreTrainedTokenizerFast, _Guard] = WeakKeyDictionary()


def _guard(tokenizer: PreTrainedTokenizerFast) -> _Guard:
    if tokenizer not in _GUARDS:
        _GUARDS[tokenizer] = _Guard(tokenizer)
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
    tokenizer: PreTrainedTokenizerFast, guard: "_Guard", text: str, messages: Sequence[Message], i: int, generate: bool
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
    tokenizer: PreTrainedTokenizerFast, guard: "_Guard", messages: Sequence[Message]
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


def _token_span(encoding: Encoding, ids: np.ndarray, text: str, span: tuple[int, int], markers: np.ndarray) -> slice:
    """The tokens of a span of characters, without what the template writes after the end-of-turn token."""
    start, end = span
    first = next((t for c in range(start, end) if (t := encoding.char_to_token(c)) is not None), None)
    last = next((t for c in range(end - 1, start - 1, -1) if (t := encoding.char_to_token(c)) is not None), None)
    if first is None or last is None:
        return slice(0, 0)
    stop = last + 1
    while stop < len(ids) and (chars := encoding.token_to_chars(stop)) is not None and chars[0] < end:
        stop += 1  # a character of several tokens
    ends = np.flatnonzero(markers[ids[first:stop]])
    if len(ends):
        turn_end = first + int(ends[-1])
        chars = encoding.token_to_chars(turn_end)
        if chars is not None and not text[chars[1] : end].strip():
            stop = turn_end + 1
    return slice(first, stop)


def tokenize(tokenizer: PreTrainedTokenizerFast, rendered: Sequence[Rendered]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids (int32) and mask (bool) of each text; tokenised in parallel, the interpreter lock released."""
    guard = _guard(tokenizer)
    found: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int32), np.zeros(0, bool))] * len(rendered)
    for guarded in (False, True):
        places = [i for i, one in enumerate(rendered) if one.guarded == guarded]
        if not places:
            continue
        backend, table = guard.twin if guarded else (guard.backend, None)
        encodings = backend.encode_batch([rendered[i].text for i in places], add_special_tokens=False)
        for i, encoding in zip(places, encodings, strict=True):
            ids = np.asarray(encoding.ids, np.int32)
            ids = ids if table is None else table[ids]
            mask = np.zeros(len(ids), bool)
            for span in rendered[i].spans:
                mask[_token_span(encoding, ids, rendered[i].text, span, guard.is_marker)] = True
            found[i] = (ids, mask)
    return found


def encode(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> Encoded:
    """Ids and mask of one conversation; `ids` starts with `prompt_ids` of the messages before the last answer."""
    rendered = render(tokenizer, messages)
    ((ids, mask),) = tokenize(tokenizer, [rendered])
    return Encoded(ids.tolist(), mask.tolist(), _guard(tokenizer).plain(rendered.text))


def prompt_ids(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> list[int]:
    """Ids of the prompt that asks the model for the next answer."""
    ((ids, _),) = tokenize(tokenizer, [render_prompt(tokenizer, messages)])
    return ids.tolist()
