"""Conversations to token ids and masks, in batches: two are tokenised on threads while the next is rendered."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from data.config import DataConfig
from data.formats import Example
from data.pack import Tokens
from models.text.prompt import Message, Rendered, render, render_text, tokenize

BATCH, AHEAD = 256, 2


def folded(example: Example) -> Example:
    """System text at the head of the user turn that follows it."""
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
    """What the tokenizer will see of an example whose system turns are folded, where they are to be."""
    try:
        if not example.messages:
            return render_text(tokenizer, example.text)
        found = render(tokenizer, example.messages)
    except UserError as error:
        raise UserError(error.what, where=error.where or example.where, fix=error.fix) from error
    return replace(found, spans=found.spans[-1:]) if last_only else found


def document(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> Tokens:
    """bos + ids + eos, all supervised but the first token, which nothing before it predicts."""
    around = [[token] if token is not None else [] for token in (tokenizer.bos_token_id, tokenizer.eos_token_id)]
    ids = np.concatenate([np.array(around[0], np.int32), ids, np.array(around[1], np.int32)])
    mask = np.ones(len(ids), bool)
    mask[:1] = False
    return ids, mask


def encoded(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, examples: Iterable[Example], dropped: Counter[str]
) -> Iterator[tuple[Example, Tokens]]:
    """Tokenise in batches on other threads: the next one fills the cores that the end of one leaves idle."""
    last_only, fold = config.train_on == "last_turn", folds(config, tokenizer)

    def prepared(example: Example) -> Iterator[tuple[Example, Rendered]]:
        try:
            example = folded(example) if fold else example
            yield example, rendered(tokenizer, example, last_only)
        except UserError:
            if config.bad_rows == "error" or not tokenizer.chat_template:
                raise
            dropped["refused by the template"] += 1

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
        ((ids, _),) = _tokens(tokenizer, [example], [rendered(tokenizer, folded(example) if fold else example, False)])
        return len(ids)

    return size
