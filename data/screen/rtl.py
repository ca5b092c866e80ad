"""Verilog as structure: what two designs share when comments, spaces and the choice of names are left out of account.

A design is the set of its runs of 8 tokens; within a run, identifiers are numbered in order of appearance. Numbering
within the run, and not over the whole design, keeps one inserted declaration from changing everything after it.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from zlib import crc32

import numpy as np

from data.screen.near import ODD, mixed

RUN = 8
_COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_MODULE = re.compile(r"\b(?:macro)?module\b.*?\bendmodule\b", re.DOTALL)
_TOKEN = re.compile(r"""[A-Za-z_$`\\][\w$]*|\d*\s*'[sS]?[bodhBODH]\s*[\w?]+|\d[\w.]*|"[^"\n]*"|[<>=!&|^~*+-]{2,3}|\S""")
_RESERVED = """always always_comb always_ff always_latch and assign automatic begin bit buf byte case casex casez const
default defparam do edge else end endcase endfunction endgenerate endmodule endtask enum for forever fork function
generate genvar if initial inout input int integer join localparam logic longint macromodule module nand negedge nor not
or output packed parameter posedge real reg repeat return shortint signed struct supply0 supply1 task time tri typedef
unique unsigned void wait while wire xnor xor"""
_KEYWORDS = frozenset(_RESERVED.split())
_NAMED = 1 << 32


def without_comments(text: str) -> str:
    return _COMMENT.sub(" ", text)


def modules(text: str) -> Iterator[str]:
    """Every module of a text, without its comments."""
    yield from (found[0] for found in _MODULE.finditer(without_comments(text)))


@lru_cache(maxsize=1 << 16)
def _number(token: str) -> int:
    named = (token[0].isalpha() or token[0] in "_\\") and token not in _KEYWORDS
    return crc32(token.encode(errors="replace")) | (_NAMED if named else 0)


def runs(code: str) -> np.ndarray:
    """The set of a design's runs, as sorted uint64."""
    tokens = np.array([_number(token) for token in _TOKEN.findall(code)], np.int64)
    windows = windowed(tokens, RUN)
    if not len(windows):
        return np.zeros(0, np.uint64)
    first = (windows[:, :, None] == windows[:, None, :]).argmax(axis=2)
    return hashed(np.where(windows >= _NAMED, first, windows + RUN))


def windowed(tokens: np.ndarray, size: int) -> np.ndarray:
    """[n, size]: every run of `size` tokens; fewer tokens than that are one run, filled up."""
    if not len(tokens):
        return np.zeros((0, size), np.int64)
    padded = np.pad(tokens, (0, max(0, size - len(tokens))), constant_values=-1)
    return np.lib.stride_tricks.sliding_window_view(padded, size)


def hashed(windows: np.ndarray) -> np.ndarray:
    """One uint64 for each row's content, sorted, without repeats."""
    total = np.zeros(len(windows), np.uint64)
    for column in windows.T:
        total = mixed(total * ODD[0] + column.astype(np.uint64))
    return np.unique(total)
