"""Does a row give away a problem of the benchmark? Every prompt and answer is compared with every problem.

Words: the share of a problem's runs of 6 words that the row contains; runs that many problems share (how a prompt
begins, how it lists ports) tell nothing and are left out. RTL: the Jaccard index of the runs of `data.screen.rtl`,
between each module of the row and the problem's reference.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np

from common.benchmark.layouts import load_benchmark
from common.errors import UserError
from data.config import DataConfig
from data.formats.example import Example
from data.screen.rtl import hashed, modules, runs, windowed, without_comments

WORDS = 6
SHOWN = 20
_COMMON = 0.05
"""Runs of words in more than this share of the problems are the benchmark's own manner of speaking."""
_WORD = re.compile(r"\w+|[^\w\s]")


@lru_cache(maxsize=1 << 16)
def _number(word: str) -> int:
    return crc32(word.encode(errors="replace"))


def word_runs(text: str) -> np.ndarray:
    """The set of a text's runs of words, as sorted uint64."""
    return hashed(windowed(np.array([_number(word) for word in _WORD.findall(text.lower())], np.int64), WORDS))


class _Index:
    """Sets of hashes by problem; `shared` counts what another set has in common with each."""

    def __init__(self, sets: list[np.ndarray]):
        self.sizes = np.array([len(one) for one in sets], np.int64)
        hashes = np.concatenate([np.zeros(0, np.uint64), *sets])
        owners = np.repeat(np.arange(len(sets)), self.sizes)
        order = np.argsort(hashes, kind="stable")
        self.hashes, self.owners = hashes[order], owners[order]

    def shared(self, other: np.ndarray) -> np.ndarray:
        low, high = np.searchsorted(self.hashes, other, "left"), np.searchsorted(self.hashes, other, "right")
        found = [self.owners[low[i] : high[i]] for i in np.flatnonzero(high > low)]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *found]), minlength=len(self.sizes))


@dataclass(frozen=True)
class Pair:
    """A row and a problem; `of` is what they have in common: words or rtl."""

    similarity: float
    where: str
    problem: str
    of: str
    excerpt: str


class BenchmarkIndex:
    """The problems of a folder, as sets of runs."""

    def __init__(self, folder: str):
        read = load_benchmark(folder, needs=("prompt",))
        self.name, self.digest = read.name, read.digest
        self.names = [problem.task_id for problem in read.problems]
        words = [word_runs(problem.prompt) for problem in read.problems]
        designs = [runs(without_comments(problem.reference)) for problem in read.problems]
        self.words, self.rtl = _Index(_distinctive(words)), _Index(designs)

    def similarities(self, example: Example) -> Iterator[tuple[str, np.ndarray]]:
        """("words" or "rtl", similarity to each problem)."""
        said = self.words.shared(word_runs(example.content))
        yield "words", said / np.maximum(self.words.sizes, 1)
        for module in modules(example.content):
            mine = runs(module)
            common = self.rtl.shared(mine)
            yield "rtl", common / np.maximum(self.rtl.sizes + len(mine) - common, 1)


def _distinctive(sets: list[np.ndarray]) -> list[np.ndarray]:
    hashes, counts = np.unique(np.concatenate(sets), return_counts=True)
    common = hashes[counts > max(2, _COMMON * len(sets))]
    told = [np.setdiff1d(one, common, assume_unique=True) for one in sets]
    return [rest if len(rest) else one for rest, one in zip(told, sets, strict=True)]


@dataclass
class Contamination:
    """What was found: the worst pair of each problem, and the rows at or above the limit; `benchmark` says of which."""

    benchmark: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    problems: set[str] = field(default_factory=set)
    worst: dict[str, Pair] = field(default_factory=dict)

    def report(self, limit: float) -> dict[str, Any]:
        pairs = sorted(self.worst.values(), key=lambda pair: (-pair.similarity, pair.problem))
        shown = [asdict(pair) for pair in pairs[:SHOWN]]
        counts = {"rows": self.rows, "problems": len(self.problems)}
        return {"benchmark": self.benchmark, "limit": limit, **counts, "worst": shown}


def judged(
    config: DataConfig, examples: Iterable[Example], found: Contamination, dropped: Counter[str]
) -> Iterator[Example]:
    """The examples, each compared; those that resemble a problem are counted, left out or refused. Raises UserError for
    one to refuse, with both places."""
    assert config.benchmark is not None
    benchmark = BenchmarkIndex(config.benchmark)
    found.benchmark = {"name": benchmark.name, "digest": benchmark.digest}
    for example in examples:
        pair = _compare(benchmark, example, config.contamination_limit, found)
        if pair is None or config.contamination == "warn":
            yield example
        elif config.contamination == "error":
            raise UserError(
                f"the row resembles {pair.problem} of the benchmark ({pair.of}: {pair.similarity:.2f})",
                where=pair.where,
                fix="remove the row, or contamination: drop",
            )
        else:
            dropped["contaminated"] += 1


def _compare(benchmark: BenchmarkIndex, example: Example, limit: float, found: Contamination) -> Pair | None:
    best = np.array([found.worst[name].similarity if name in found.worst else 0.0 for name in benchmark.names])
    worst: Pair | None = None
    for of, similarity in benchmark.similarities(example):
        for i in np.flatnonzero((similarity > best) | (similarity >= limit)):
            name, value = benchmark.names[i], float(similarity[i])
            pair = Pair(round(value, 4), example.where, name, of, " ".join(example.content.split())[:160])
            if value > best[i]:
                best[i], found.worst[name] = value, pair
            if value >= limit:
                found.problems.add(name)
                worst = pair if worst is None or worst.similarity < value else worst
    found.rows += worst is not None
    return worst
