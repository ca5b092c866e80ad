"""What a model's files say of its tokens: for how many ids there is an embedding, and which ones end a completion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from common.files import read_json
from models.text.eos_ids import eos_ids
from models.text.prompt import markers


@dataclass(frozen=True)
class Limits:
    """`rows` of the embedding, 0 where nothing says so; `ending[i]`: whether id i stops a completion."""

    tokenizer: PreTrainedTokenizerFast
    model: str
    rows: int
    ending: np.ndarray

    def check(self, ids: np.ndarray, where: str) -> None:
        """Raise UserError for a token that has no row in the embedding."""
        if not self.rows or int(ids.max(initial=0)) < self.rows:
            return
        token = int(ids[ids >= self.rows][0])
        word = self.tokenizer.convert_ids_to_tokens(token)
        raise UserError(
            f"token {word!r} has id {token}, and the embedding of {self.model} has {self.rows} rows (vocab_size)",
            where=where,
            fix="leave the token out of the rows and the tokenizer, or take a model whose embedding has been resized",
        )

    def ends(self, ids: np.ndarray, mask: np.ndarray) -> bool:
        """Whether the last token that is learnt ends a completion."""
        last = len(mask) - 1 - int(mask[::-1].argmax())
        return bool(self.ending[ids[last]])


def limits_of(model: str, tokenizer: PreTrainedTokenizerFast) -> Limits:
    path = Path(model) / "config.json"
    config: Any = read_json(path) if path.is_file() else {}
    inner = config.get("text_config") or config
    rows = inner.get("vocab_size", config.get("vocab_size", 0))
    ending = markers(tokenizer).copy()
    try:
        ids = [i for i in eos_ids(model, tokenizer) if 0 <= i < len(ending)]
    except UserError:  # nothing ends a completion, or the template shows no lone exchange
        ids = []
    ending[ids] = True
    return Limits(tokenizer, model, rows if isinstance(rows, int) else 0, ending)
