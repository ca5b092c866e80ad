"""Decoding token by token gives what decoding the whole gives: 10,000 random lists of ids for each kind."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from models.text.detokenize import BYTES, Detokenizer

LISTS = 10_000
WORDS = ["▁", "▁the", "the", "a", "▁a", "\n", "▁▁", "日", "é", "🙂", "x", "▁x", "'s", "."]
SPOKEN = ["日本語", "é", "🙂👩‍👧", " the a", "module x", "\n\n", "don't ."]
FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]
SENTENCEPIECE = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
DECODERS = {
    "gemma": decoders.Sequence(SENTENCEPIECE),
    "llama": decoders.Sequence([*SENTENCEPIECE, decoders.Strip(" ", 1, 0)]),
    "bytes alone": decoders.ByteFallback(),
    "metaspace": decoders.Metaspace(),
    "metaspace never": decoders.Metaspace(prepend_scheme="never"),
    "bpe suffix": decoders.BPEDecoder("x"),
    "none": None,
    "held to the end": decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]),
    "ctc": decoders.CTC(pad_token="▁", word_delimiter_token="a"),
}
PIECES = ["[UNK]", "[CLS]", "mod", "##ule", "##s", "a", ".", "?", ",", "'", "##n't", "do not", "'s", "##.", "##", "日"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert sorted(alphabet) == sorted(BYTES)
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SPOKEN * 9, trainer)
    tokenizer.add_tokens(["é x", "<a b>"])
    return tokenizer


def fallback(decoder: decoders.Decoder | None, unigram: bool = False) -> Tokenizer:
    words = ["<unk>", "<s>", "</s>", *FALLBACK, *WORDS]
    if unigram:
        tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0, byte_fallback=True))
    else:
        vocabulary = {word: i for i, word in enumerate(words)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def word_piece(cleanup: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=cleanup)
    tokenizer.add_special_tokens(["[CLS]"])
    return tokenizer


KINDS = {
    "byte-level": byte_level,
    **{name: lambda decoder=decoder: fallback(decoder) for name, decoder in DECODERS.items()},
    "unigram": lambda: fallback(DECODERS["gemma"], unigram=True),
    "word piece": lambda: word_piece(False),
    "word piece cleaned": lambda: word_piece(True),
}


def lists(tokenizer: Tokenizer, seed: int) -> list[list[int]]:
    """Ids at random, some beyond the vocabulary, runs of high bytes, and text with something strange after it."""
    rng, size = random.Random(seed), tokenizer.get_vocab_size()
    high = [i for word, i in tokenizer.get_vocab().items() if word in FALLBACK[128:]] or list(range(size))
    spoken = [tokenizer.encode(text, add_special_tokens=False).ids for text in SPOKEN]
    found = []
    for number in range(LISTS):
        chosen = [rng.randrange(size + 3) if rng.random() < 0.6 else rng.choice(high) for _ in range(rng.randrange(14))]
        found.append([*(i for ids in rng.choices(spoken, k=3) for i in ids), *chosen[:2]] if number % 3 else chosen)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_one_by_one_equals_the_whole(kind: str) -> None:
    tokenizer = KINDS[kind]()
    detokenizer = Detokenizer(tokenizer)
    for number, ids in enumerate(lists(tokenizer, len(kind))):
        skip = number % 4 > 0
        stream = detokenizer.stream(skip_special=skip)
        whole = "".join([stream.add(i) for i in ids]) + stream.end()
        assert whole == tokenizer.decode(ids, skip_special_tokens=skip), (ids, [tokenizer.id_to_token(i) for i in ids])


def known(tokenizer: Tokenizer, word: str) -> int:
    found = tokenizer.token_to_id(word)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["byte-level", "gemma", "unigram"])
def test_the_bytes_of_tokens_joined_are_the_text(kind: str) -> None:
    tokenizer = KINDS[kind]()
    detokenizer = Detokenizer(tokenizer)
    for text in SPOKEN:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        found = bytes(byte for n, i in enumerate(ids) for byte in detokenizer.bytes_of(i, first=n == 0))
        assert found.decode() == tokenizer.decode(ids)


def test_a_later_token_keeps_the_space_that_a_first_one_loses() -> None:
    detokenizer = Detokenizer(fallback(DECODERS["llama"]))
    token = known(detokenizer.backend, "▁the")
    assert (detokenizer.piece(token, first=True), detokenizer.piece(token)) == ("the", " the")


def test_text_comes_as_soon_as_it_is_certain() -> None:
    tokenizer = fallback(DECODERS["gemma"])
    stream = Detokenizer(tokenizer).stream()
    ids = [known(tokenizer, word) for word in ("▁the", "<0xE6>", "<0x97>", "<0xA5>", "a")]
    assert [stream.place(i) for i in ids] == [(" the", 0), ("", 4), ("", 4), ("", 4), ("日a", 5)]


def test_a_token_after_half_a_character_begins_after_it() -> None:
    tokenizer = byte_level()
    stream = Detokenizer(tokenizer).stream()
    half, letter = tokenizer.encode("日", add_special_tokens=False).ids[:1], known(tokenizer, "x")
    found = [stream.place(i) for i in (letter, *half, letter)]
    assert found == [("x", 0), ("", 1), ("\ufffdx", 2)]
