"""Tokens to text one by one, the same text as decoding them all at once; for every kind of decoder a tokenizer has.

A tokenizer.json names its decoder: byte-level, byte fallback, WordPiece, Metaspace, or a sequence of such. Each is a
stage here that is given tokens as they come and holds back what later ones can still change: a character's first
bytes, or a run of byte-fallback tokens, which is one text where all of it is UTF-8 and U+FFFD for each byte otherwise.
A decoder that cannot be followed is given all tokens when the last one has come.
"""

import codecs
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
REPLACEMENT = "\ufffd"


def _byte_alphabet() -> dict[str, int]:
    """The letters that stand for bytes in byte-level tokenizers (GPT-2): printable ones for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


BYTES = _byte_alphabet()


class Stage(Protocol):
    def add(self, token: str) -> str: ...

    def end(self) -> str: ...

    def ahead(self) -> int:
        """Whole characters among what is held back."""
        ...


class _Each:
    """Decoders that look at one token and at whether it is the first."""

    def __init__(self, text: Callable[[str, bool], str], begun: bool):
        self.text, self.begun = text, begun

    def add(self, token: str) -> str:
        found, self.begun = self.text(token, not self.begun), True
        return found

    def end(self) -> str:
        return ""

    def ahead(self) -> int:
        return 0


class _ByteLevel:
    def __init__(self) -> None:
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: str) -> str:
        return self.utf8.decode(byte_level(token))

    def end(self) -> str:
        return self.utf8.decode(b"", True)

    def ahead(self) -> int:
        return 0


def byte_level(token: str) -> bytes:
    """Bytes that a byte-level token stands for; a token with other letters (an added one) is its own text."""
    try:
        return bytes([BYTES[letter] for letter in token])
    except KeyError:
        return token.encode()


class _ByteFallback:
    def __init__(self) -> None:
        self.run = bytearray()

    def add(self, token: str) -> str:
        found = _BYTE.fullmatch(token)
        if found is None:
            return self.end() + token
        self.run.append(int(found[1], 16))
        return ""

    def end(self) -> str:
        run, self.run = bytes(self.run), bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return REPLACEMENT * len(run)

    def ahead(self) -> int:
        return len(self.run.decode("utf-8", "ignore"))


class _Suffix:
    """BPE with a mark at the end of words: a space, but after the last token."""

    def __init__(self, suffix: str) -> None:
        self.suffix, self.last = suffix, ""

    def add(self, token: str) -> str:
        found, self.last = self.last.replace(self.suffix, " "), token
        return found

    def end(self) -> str:
        found, self.last = self.last.replace(self.suffix, ""), ""
        return found

    def ahead(self) -> int:
        return len(self.last.replace(self.suffix, " "))


class _Chain:
    """Per-token stages, and what follows the first that fuses tokens into one text: there, pieces of a text pass."""

    def __init__(self, stages: Sequence[Stage]):
        self.stages = stages

    def add(self, token: str) -> str:
        for i, stage in enumerate(self.stages):
            token = stage.add(token)
            if not token and i:
                return ""
        return token

    def end(self) -> str:
        text = ""
        for stage in self.stages:
            text = (stage.add(text) if text else "") + stage.end()
        return text

    def ahead(self) -> int:
        return sum(stage.ahead() for stage in self.stages)


def _stripped(content: str, most: int) -> Callable[[str, bool], str]:
    """Leading characters of one text that comes in pieces."""
    left = most

    def strip(piece: str, first: bool) -> str:
        nonlocal left
        while left and piece.startswith(content):
            piece, left = piece[1:], left - 1
        left = 0 if piece else left
        return piece

    return strip


def _cleaned(text: str) -> str:
    for old in (" .", " ?", " !", " ,"):
        text = text.replace(old, old[1])
    text = text.replace(" ' ", "'").replace(" n't", "n't").replace(" 'm", "'m").replace(" do not", " don't")
    return text.replace(" 's", "'s").replace(" 've", "'ve").replace(" 're", "'re")


def _word_piece(step: dict[str, Any]) -> Callable[[str, bool], str]:
    prefix, clean = step["prefix"], step["cleanup"]

    def text(token: str, first: bool) -> str:
        if not first:
            token = token.removeprefix(prefix) if token.startswith(prefix) else f" {token}"
        return _cleaned(token) if clean else token

    return text


def _metaspace(step: dict[str, Any]) -> Callable[[str, bool], str]:
    mark, kept = step["replacement"], step.get("prepend_scheme", "always") == "never"
    return lambda token, first: token.replace(mark, "" if first and not kept else " ")


def _stages(form: dict[str, Any] | None, begun: bool) -> list[Stage] | None:
    """The stages of a decoder; None where one of them cannot be followed token by token."""
    if form is None:
        return [_Each(lambda token, first: token if first else f" {token}", begun)]
    steps = form["decoders"] if form["type"] == "Sequence" else [form]
    found: list[Stage] = []
    fused = False
    for step in steps:
        kind, pattern = step["type"], step.get("pattern", {}).get("String")
        if kind == "Fuse":
            fused = True
        elif kind == "Replace" and pattern and (not fused or len(pattern) == 1):
            content = step["content"]
            found.append(_Each(lambda token, _, old=pattern, new=content: token.replace(old, new), begun))
        elif kind == "Strip" and fused and step["stop"] == 0:
            found.append(_Each(_stripped(step["content"], 0 if begun else step["start"]), begun))
        elif kind == "ByteFallback" and not fused:
            found.append(_ByteFallback())
        elif kind == "ByteLevel" and not found:
            found.append(_ByteLevel())
            fused = True
        elif kind in ("WordPiece", "Metaspace") and len(steps) == 1:
            found.append(_Each((_word_piece if kind == "WordPiece" else _metaspace)(step), begun))
        elif kind == "BPEDecoder" and len(steps) == 1:
            found.append(_Suffix(step["suffix"]))
        else:
            return None
    return found


class Detokenizer:
    """What a tokenizer's tokens say: shared by all texts that it decodes."""

    def __init__(self, backend: Tokenizer):
        self.backend = backend
        self.form = json.loads(backend.to_str()).get("decoder")
        self.special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        steps = [] if self.form is None else self.form.get("decoders", [self.form])
        self.kinds = {step["type"] for step in steps}
        self._pieces: dict[tuple[int, bool], str] = {}

    def stream(self, *, skip_special: bool = True, begun: bool = False) -> "Decoding":
        """A text that begins; `begun`: one that goes on, so that its first token is not the first of a text."""
        return Decoding(self, skip_special, begun)

    def piece(self, token: int, first: bool = False) -> str:
        """The text of a single token, as the first or a later one of a text; U+FFFD where it is part of a character."""
        if (token, first) not in self._pieces:
            decoding = self.stream(skip_special=False, begun=not first)
            self._pieces[token, first] = decoding.add(token) + decoding.end()
        return self._pieces[token, first]

    def bytes_of(self, token: int, first: bool = False) -> list[int]:
        """The bytes a token adds, those of a part of a character among them."""
        text = self.backend.id_to_token(token) or ""
        if "ByteLevel" in self.kinds:
            return list(byte_level(text))
        found = _BYTE.fullmatch(text) if "ByteFallback" in self.kinds else None
        return [int(found[1], 16)] if found else list(self.piece(token, first).encode())


class Decoding:
    """One text, token by token: the pieces that `add` and, once, `end` give are the decoded whole."""

    def __init__(self, detokenizer: Detokenizer, skip_special: bool, begun: bool):
        self._of, self._skip, self._ids, self._length = detokenizer, skip_special, list[int](), 0
        stages = _stages(detokenizer.form, begun)
        self._chain = None if stages is None else _Chain(stages)

    def add(self, token: int) -> str:
        """What the token makes certain."""
        text = self._of.backend.id_to_token(token)
        if text is None or (self._skip and text in self._of.special):
            return ""
        if self._chain is None:
            self._ids.append(token)
            return ""
        return self._chain.add(text)

    def place(self, token: int) -> tuple[str, int]:
        """What the token makes certain, and where in the text it begins: parts of a character, where that does."""
        before = self._length + (0 if self._chain is None else self._chain.ahead())
        text = self.add(token)
        self._length += len(text)
        own = self._of.piece(token, first=before == 0)
        whole = own and REPLACEMENT not in own and text.endswith(own)
        return text, self._length - len(own) if whole else before

    def end(self) -> str:
        """What was held back, as the tokenizer shows it where nothing follows."""
        if self._chain is not None:
            return self._chain.end()
        return str(self._of.backend.decode(self._ids, skip_special_tokens=self._skip))
