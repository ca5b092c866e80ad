"""Conversations to token ids and masks, in batches: one is tokenised on a thread while the next is rendered."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from data.config import DataConfig
from data.formats import Example
from data.pack import Tokens
from models.prompt import Message, Rendered, render, render_text, tokenize

BATCH = 256


def _fold(example: Example) -> Example:
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
    return replace(example, messages=tuple(found))


def folds(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the recipe asks for folding and the template drops or refuses a system turn."""
    if config.system == "error":
        return False
    try:
        render(tokenizer, [{"role": role, "content": f"some {role} text"} for role in ("system", "user", "assistant")])
    except UserError:
        return True
    return False


def _rendered(tokenizer: PreTrainedTokenizerFast, example: Example, last_only: bool) -> Rendered:
    try:
        if not example.messages:
            return render_text(tokenizer, example.text)
        rendered = render(tokenizer, example.messages)
    except UserError as error:
        raise UserError(error.what, where=error.where or example.where, fix=error.fix) from error
    return replace(rendered, spans=rendered.spans[-1:]) if last_only else rendered


def document(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> Tokens:
    """bos + ids + eos, all supervised but the first token, which nothing before it predicts."""
    around = [[token] if token is not None else [] for token in (tokenizer.bos_token_id, tokenizer.eos_token_id)]
    ids = np.concatenate([np.array(around[0], np.int32), ids, np.array(around[1], np.int32)])
    mask = np.ones(len(ids), bool)
    mask[:1] = False
    return ids, mask


def encoded(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, examples: Iterable[Example]
) -> Iterator[tuple[Example, Tokens]]:
    """Tokenise in batches on another thread, one batch ahead of what is being rendered."""
    last_only, fold = config.train_on == "last_turn", folds(config, tokenizer)
    stream = iter(examples)
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        while True:
            group = [_fold(example) if fold else example for example in islice(stream, BATCH)]
            rendered = [_rendered(tokenizer, example, last_only) for example in group]
            ahead = (group, pool.submit(tokenize, tokenizer, rendered)) if group else None
            if waiting:
                yield from zip(waiting[0], waiting[1].result(), strict=True)
            if not ahead:
                return
            waiting = ahead
