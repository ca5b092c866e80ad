"""A prompt that the answer repeats: its text, and where each of its tokens begins in it."""

from transformers import PreTrainedTokenizerFast

from serve.api.text import Vocabulary


def echoed(
    tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary, prompt: str | list[int]
) -> tuple[str, list[int]]:
    """What the tokenizer adds to a text (its bos) does not show; the special tokens of a list of ids do."""
    if not isinstance(prompt, str):
        return vocabulary.offsets(prompt)
    found = tokenizer(prompt, return_special_tokens_mask=True, return_offsets_mapping=True)
    added = found["special_tokens_mask"]
    text, starts = vocabulary.offsets([i for i, extra in zip(found["input_ids"], added, strict=True) if not extra])
    if text != prompt:  # a normaliser or a control token in the text: by the tokenizer's own offsets
        starts = [span[0] for span, extra in zip(found["offset_mapping"], added, strict=True) if not extra]
    placed, following = list[int](), len(prompt)
    for extra in reversed(added):
        following = following if extra else starts.pop()
        placed.append(following)
    return prompt, placed[::-1]
