"""What travels between server, scheduler and engine: requests in, events out. Plain data, no array library."""

from dataclasses import dataclass, field
from enum import StrEnum


class Finish(StrEnum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. temperature 0 is greedy; sample i of a request draws from key (seed, i, position)."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 16
    ignore_end: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One prompt and the n completions wanted of it. `score_prompt` asks for the prompt's own log-probabilities."""

    id: int
    prompt: tuple[int, ...]
    n: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    score_prompt: bool = False

    @property
    def limit(self) -> int:
        """Length of prompt plus completion at which a sample ends."""
        return len(self.prompt) + self.sampling.max_tokens


@dataclass(slots=True, eq=False)
class Sample:
    """One running completion: its last token stands at `position`, not yet in the cache."""

    request: Request
    index: int
    token: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """A token with its log-probability, and the most likely token there with its own (natural logarithm)."""

    id: int
    logprob: float
    best: int
    best_logprob: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens of one sample; `finish` is set on its last chunk, which may be empty."""

    request: int
    index: int
    tokens: list[Token]
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of a prompt's tokens from the second on; the first has no context."""

    request: int
    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine has broken down; no request will be answered any more."""

    reason: str


Event = Chunk | Scores | Failed
