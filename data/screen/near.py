"""Near-duplicates among rows as they stream by: MinHash signatures in a banded index, both of numpy arrays.

Shingles are the runs of 12 bytes of a text, its case and its runs of whitespace levelled. One hash of each gives the
whole signature (one permutation hashing: Li, Owen and Zhang 2012; empty bins filled by rotation: Shrivastava and Li
2014), and two signatures agree in about as many places as the Jaccard index of their shingles, give or take 0.04. A row
that is dropped is no row that later ones are compared with. A row kept costs about 0.5 kB, whatever its length.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from data.formats.example import Example

GROUP = 256
BINS = 120
_SHINGLE = 12
_MISSED = 0.005
"""Largest chance that a pair at the threshold shares no band, and so is never compared."""
ODD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
_SHIFT = np.uint64(32)


def mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * ODD[1]
    x = (x ^ (x >> np.uint64(27))) * ODD[2]
    return x ^ (x >> np.uint64(31))


def signature(text: str) -> np.ndarray:
    """[BINS] uint16 of a text."""
    levelled = " ".join(text.lower().split()).encode(errors="replace")
    data = np.frombuffer(levelled.ljust(_SHINGLE, b"\0"), np.uint8)
    eights = np.lib.stride_tricks.sliding_window_view(data, 8).copy().view("<u8").ravel()
    hashes = mixed(eights[:-4] * ODD[0] ^ mixed(eights[4:]))
    hashes.sort()
    bins = (hashes >> _SHIFT) * np.uint64(BINS) >> _SHIFT
    firsts = np.searchsorted(bins, np.arange(BINS, dtype=np.uint64))
    filled = np.flatnonzero(np.diff(firsts, append=len(hashes)))
    nearest = filled[np.searchsorted(filled, np.arange(BINS)) % len(filled)]
    distance = (nearest - np.arange(BINS)) % BINS
    return (mixed(hashes[firsts[nearest]] + distance.astype(np.uint64) * ODD[0]) >> np.uint64(48)).astype(np.uint16)


def rows_per_band(threshold: float) -> int:
    """The most rows a band may have, and so the fewest pairs compared in vain, without missing pairs that count."""
    fits = [r for r in range(1, 13) if BINS % r == 0 and (1 - threshold**r) ** (BINS // r) <= _MISSED]
    return max(fits, default=1)


class _Sorted:
    """A multimap of uint64 to row numbers, in sorted runs that double in length: it grows without a rehash."""

    def __init__(self) -> None:
        self.runs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, keys: np.ndarray, rows: np.ndarray) -> None:
        while self.runs and len(self.runs[-1][0]) <= 2 * len(keys):
            more, theirs = self.runs.pop()
            keys, rows = np.concatenate([more, keys]), np.concatenate([theirs, rows])
        order = np.argsort(keys, kind="stable")
        self.runs.append((keys[order], rows[order]))

    def find(self, keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(at in `keys`, rows that have this key), where there are any."""
        for known, rows in self.runs:
            low, high = np.searchsorted(known, keys, "left"), np.searchsorted(known, keys, "right")
            for at in np.flatnonzero(high > low):
                yield int(at), rows[low[at] : high[at]]


class NearDuplicates:
    """The rows kept so far; `keep` says which of the next ones are new."""

    def __init__(self, threshold: float):
        self.threshold, self.wide = threshold, rows_per_band(threshold)
        self.bands = BINS // self.wide
        self.index, self.kept = _Sorted(), 0
        self.signatures = np.zeros((1024, BINS), np.uint16)

    def _keys(self, signatures: np.ndarray) -> np.ndarray:
        """[n, bands]: a number for each band's rows."""
        parts = signatures.reshape(len(signatures), self.bands, self.wide).astype(np.uint64)
        keys = np.broadcast_to(np.arange(self.bands, dtype=np.uint64), parts.shape[:2])
        for i in range(self.wide):
            keys = mixed(keys * ODD[0] + parts[:, :, i])
        return keys

    def keep(self, texts: list[str]) -> list[bool]:
        """Whether each text is new: unlike all that were kept, those before it in the list among them."""
        signatures = np.stack([signature(text) for text in texts])
        keys = self._keys(signatures)
        candidates: list[list[np.ndarray]] = [[] for _ in texts]
        for at, rows in self.index.find(keys.ravel()):
            candidates[at // self.bands].append(rows)
        recent: dict[int, list[int]] = {}
        first, new = self.kept, []
        for i in range(len(texts)):
            mine = keys[i].tolist()
            near = [row for key in mine for row in recent.get(key, ())]
            rows = np.unique(np.concatenate([*candidates[i], np.array(near, np.int32)]).astype(np.int32))
            same = (self.signatures[rows] == signatures[i]).mean(axis=1) if len(rows) else np.zeros(0)
            new.append(not (same >= self.threshold).any())
            if new[-1]:
                for key in mine:
                    recent.setdefault(key, []).append(self.kept)
                self._store(signatures[i])
        self.index.add(keys[new].ravel(), np.repeat(np.arange(first, self.kept, dtype=np.int32), self.bands))
        return new

    def _store(self, one: np.ndarray) -> None:
        if self.kept == len(self.signatures):
            self.signatures = np.concatenate([self.signatures, np.zeros_like(self.signatures)])
        self.signatures[self.kept] = one
        self.kept += 1


def without_near_duplicates(examples: Iterable[Example], threshold: float, dropped: Counter[str]) -> Iterator[Example]:
    """The examples unlike all before them; `dropped` counts the others."""
    stream, known = iter(examples), NearDuplicates(threshold)
    while group := list(islice(stream, GROUP)):
        for example, new in zip(group, known.keep([example.content for example in group]), strict=True):
            if new:
                yield example
            else:
                dropped["near duplicate"] += 1
