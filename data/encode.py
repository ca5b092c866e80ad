"""Conversations to token ids and masks, in batches: two are tokenised on threads while the next is rendered."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from data.clean import Tally, reading_of
from data.config import DataConfig
from data.formats.example import Dropped, Example
from data.formats.reading import Reading
from data.pack import Tokens
from models.text.answers import Rewrites
from models.text.prompt import Rendered, not_shown, render, render_text, tokenize
from models.text.template import LEARN, Message, TemplateFault

BATCH, AHEAD = 256, 2
REFUSED = "refused by the template"


def folded(example: Example) -> Example:
    """System text at the head of the user turn that follows it. Raises UserError where no user turn follows."""
    found: list[Message] = []
    pending: list[str] = []
    for message in example.messages:
        if message["role"] == "system":
            pending.append(message["content"])
        elif message["role"] == "user" and pending:
            found.append({"role": "user", "content": "\n\n".join([*pending, message["content"]])})
            pending = []
        else:
            found.append(message)
    if pending:
        raise UserError(
            "a system turn with no user turn after it to fold into", where=example.where, fix="mend the row"
        )
    return replace(example, messages=tuple(found), unfolded=example.messages)


def folds(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the recipe asks for folding and the template drops or refuses a system turn."""
    if config.system == "error":
        return False
    try:
        render(tokenizer, [{"role": role, "content": f"some {role} text"} for role in ("system", "user", "assistant")])
    except UserError:
        return True
    return False


def rendered(tokenizer: PreTrainedTokenizerFast, example: Example, last_only: bool) -> Rendered:
    """What the tokenizer will see of an example whose system turns are folded, where they are to be. Raises UserError,
    with the row's place, for what the template refuses or drops."""
    try:
        if not example.messages:
            return render_text(tokenizer, example.text)
        return render(tokenizer, example.messages, example.tools, last_only)
    except RecursionError:
        raise UserError("the row is nested too deeply", where=example.where, fix="mend the row") from None
    except UserError as error:
        if isinstance(error, TemplateFault):
            raise
        error.where = error.where or example.where
        raise


def each_answer(example: Example) -> list[Example]:
    """A row for each answer, which is its last turn: as the template shows it when it is said."""
    messages = example.messages
    ends = [i for i, one in enumerate(messages) if one["role"] == "assistant" and one.get(LEARN) is not False]
    context = tuple(one | {LEARN: False} if one["role"] == "assistant" else one for one in messages)
    group = example.group or example.digest.hex()
    return [replace(example, messages=(*context[:i], messages[i]), group=group, unfolded=()) for i in ends]


def _gone(tokenizer: PreTrainedTokenizerFast, example: Example, parts: list[Example]) -> set[str]:
    """What the template does not show of an example that becomes these rows; a thought, where it is the last turn's."""
    found = set(not_shown(tokenizer, example.messages, example.tools))
    if len(parts) > 1:
        thoughts = (set(not_shown(tokenizer, one.messages, one.tools)) & {"reasoning_content"} for one in parts)
        found = (found - {"reasoning_content"}).union(*thoughts)
    return found


def check_shown(tokenizer: PreTrainedTokenizerFast, example: Example, parts: list[Example], reading: Reading) -> None:
    """Raise BadRow where the template does not show something that has a meaning; what may be let go is counted.

    Dropped: a turn that was nothing but a call which is let go.
    """
    if not example.rich:
        return
    for name in sorted(_gone(tokenizer, example, parts)):
        key = name if name == "tools" else f"messages[].{name}"
        if name in ("name", "tool_call_id"):
            reading.count(key)
        else:
            reading.leave(key, example.where, "the chat template does not show it")
        calls = [one for one in example.messages if "tool_calls" in one]
        if name == "tool_calls" and not all(one["content"].strip() for one in calls):
            raise Dropped("empty answer")


def document(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> Tokens:
    """bos + ids + eos, all supervised but the first token, which nothing before it predicts."""
    around = [[token] if token is not None else [] for token in (tokenizer.bos_token_id, tokenizer.eos_token_id)]
    ids = np.concatenate([np.array(around[0], np.int32), ids, np.array(around[1], np.int32)])
    mask = np.ones(len(ids), bool)
    mask[:1] = False
    return ids, mask


def encoded(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerFast,
    examples: Iterable[Example],
    tally: Tally,
    cut: bool = False,
) -> Iterator[tuple[Example, Tokens]]:
    """Tokenise in batches on other threads: the next one fills the cores that the end of one leaves idle.

    `cut`: the examples are parts of ones that came through here before.
    """
    last_only, fold = config.train_on == "last_turn", folds(config, tokenizer)
    reading = reading_of(config, config.sources[0], tally)

    def shown(example: Example) -> Iterator[tuple[Example, Rendered]]:
        example = folded(example) if fold else example
        try:
            found = rendered(tokenizer, example, last_only)
        except Rewrites:
            found = None
        whole = found is not None and (not found.rewritten or last_only)
        parts = [example] if whole else each_answer(example)
        if not cut:
            check_shown(tokenizer, example, parts, reading)
        if found is not None and whole:
            yield example, found
            return
        tally.split, tally.parts = tally.split + 1, tally.parts + len(parts)
        for part in parts:
            yield part, rendered(tokenizer, part, last_only=True)

    def prepared(example: Example) -> Iterator[tuple[Example, Rendered]]:
        try:
            yield from list(shown(example))
        except Dropped as reason:
            tally.dropped[str(reason)] += 1
        except TemplateFault:
            raise
        except UserError as error:
            error.where = error.where or example.where
            if config.bad_rows == "error":
                raise
            tally.dropped[REFUSED] += 1

    stream = iter(examples)
    ahead: deque[tuple[list[Example], Future[list[Tokens]]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        while group := list(islice(stream, BATCH)):
            ready = [pair for example in group for pair in prepared(example)]
            kept, texts = [example for example, _ in ready], [text for _, text in ready]
            ahead.append((kept, pool.submit(_tokens, tokenizer, kept, texts)))
            if len(ahead) > AHEAD:
                yield from _finished(*ahead.popleft())
        while ahead:
            yield from _finished(*ahead.popleft())


def _tokens(tokenizer: PreTrainedTokenizerFast, group: list[Example], texts: list[Rendered]) -> list[Tokens]:
    found = tokenize(tokenizer, texts)
    return [
        tokens if example.messages else document(tokenizer, tokens[0])
        for example, tokens in zip(group, found, strict=True)
    ]


def _finished(group: list[Example], tokens: Future[list[Tokens]]) -> Iterator[tuple[Example, Tokens]]:
    return zip(group, tokens.result(), strict=True)


def sizer(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> Callable[[Example], int]:
    """Tokens of an example, all told."""
    fold = folds(config, tokenizer)

    def size(example: Example) -> int:
        shown = folded(example) if fold else example
        ((ids, _),) = _tokens(tokenizer, [example], [rendered(tokenizer, shown, last_only=True)])
        return len(ids)

    return size
