"""Tokens to text, as they come: complete characters only, and nothing of a stop string ever shown."""

from bisect import bisect_left
from dataclasses import dataclass, field

from models.text.detokenize import Detokenizer
from serve.engine.request import Chunk, Finish, Token


@dataclass(slots=True)
class Delta:
    """What a chunk adds to a completion: text that may be shown, the tokens it counts and where each begins in the
    completion's text, and how it ended."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: Finish | None = None
    offsets: list[int] = field(default_factory=list)


class Completion:
    """One sample's text. Streamed deltas, joined, are the text of the whole; the token that completes a stop string
    is the last one counted."""

    def __init__(self, detokenizer: Detokenizer, stop: tuple[str, ...] = ()):
        self.tokens: list[Token] = []
        self.offsets: list[int] = []
        self.finish: Finish | None = None
        self._stream = detokenizer.stream()
        self._stop, self._shown, self._decoded = sorted(stop), 0, ""

    @property
    def text(self) -> str:
        return self._decoded[: self._shown]

    def add(self, chunk: Chunk) -> Delta:
        """Take a chunk in; after the end nothing is taken any more."""
        delta = Delta()
        if self.finish is not None:
            return delta
        for token in chunk.tokens:
            delta.tokens.append(token)
            text, start = self._stream.place(token.id)
            delta.offsets.append(start)
            self._decoded += text
            if self._cut():
                self.finish = Finish.STOP
                break
        else:
            self.finish = chunk.finish and self._last(chunk.finish)
        self.tokens += delta.tokens
        self.offsets += delta.offsets
        safe = len(self._decoded) if self.finish else len(self._decoded) - self._held_back()
        delta.text, delta.finish = self._decoded[self._shown : safe], self.finish
        self._shown = max(safe, self._shown)
        return delta

    def _last(self, finish: Finish) -> Finish:
        """The end has come: a character that was never completed is shown as the tokenizer shows it."""
        self._decoded += self._stream.end()
        return Finish.STOP if self._cut() else finish

    def _cut(self) -> bool:
        """Does the text hold a stop string? Then it ends before the first one."""
        found = [at for stop in self._stop if (at := self._decoded.find(stop, max(0, self._shown - len(stop)))) >= 0]
        if found:
            self._decoded = self._decoded[: min(found)]
        return bool(found)

    def _held_back(self) -> int:
        """Characters at the end that may turn out to begin a stop string; what has been shown never does."""
        return next((n for n in range(len(self._decoded) - self._shown, 0, -1) if self._begins(self._decoded[-n:])), 0)

    def _begins(self, end: str) -> bool:
        """Of strings in order, the first that is not before `end` is one that begins with it, if any does."""
        at = bisect_left(self._stop, end)
        return at < len(self._stop) and self._stop[at].startswith(end)


class Vocabulary:
    """The text and bytes of single tokens, for log-probabilities; a text's first token may show without its space."""

    def __init__(self, detokenizer: Detokenizer):
        self.detokenizer = detokenizer

    def text(self, token: int, first: bool = False) -> str:
        """A token's text; one that is part of a character shows as U+FFFD."""
        return self.detokenizer.piece(token, first)

    def bytes(self, token: int, first: bool = False) -> list[int]:
        """A token's bytes: those of a character's parts, joined, are the character's."""
        return self.detokenizer.bytes_of(token, first)

    def offsets(self, ids: list[int]) -> tuple[str, list[int]]:
        """A text that shows its special tokens, and where each token begins in it."""
        stream, text, starts = self.detokenizer.stream(skip_special=False), "", []
        for token in ids:
            more, start = stream.place(token)
            text += more
            starts.append(start)
        return text + stream.end(), starts
