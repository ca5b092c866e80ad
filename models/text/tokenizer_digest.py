"""Which tokenizer a data set was prepared with, as one digest."""

import hashlib

from transformers import PreTrainedTokenizerFast


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """sha256 over the pipeline that makes ids of text (vocabulary, merges, normalizer, added tokens), as
    `load_tokenizer` gives it: without truncation and padding, and however its file is laid out."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
