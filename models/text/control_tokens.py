"""What keeps message content from turning into control tokens, for one tokenizer.

Content that spells a control token is hidden under unguessable names while the template renders it; a twin tokenizer
then knows the control tokens under such names only, and reads the spellings as text.
"""

import re
import secrets
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from models.text.loss_mask import ByteCounts


def _any_of(words: Iterable[str]) -> str:
    """A pattern that matches any of the words, longest first, branching by letter: a vocabulary may list thousands."""
    heads: dict[str, list[str]] = {}
    for word in words:
        heads.setdefault(word[:1], []).append(word[1:])
    ends = "" in heads
    heads.pop("", None)
    branches = [re.escape(letter) + (_any_of(tails) if tails != [""] else "") for letter, tails in heads.items()]
    return f"(?:{'|'.join(branches)}){'?' if ends else ''}" if branches else ""


class ControlTokens:
    """`is_marker[i]` says whether id i is an added token that shows: a control token, for one."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.backend = tokenizer.backend_tokenizer
        added = self.backend.get_added_tokens_decoder()
        self.special = {token.content: (i, token) for i, token in added.items() if token.special}
        self.spelled = re.compile(_any_of(self.special)) if self.special else re.compile(r"(?!)")
        self.normalized = any(token.normalized for _, token in self.special.values())
        self.control = {i for i, _ in self.special.values()}
        self.byte_counts = ByteCounts(self.backend)
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
