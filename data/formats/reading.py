"""How rows are read, and what of them is not: every column and key is used, or counted here under its name.

A key that would change what is learnt (a system text, a tool call, a loss mask) and cannot be used is an error, unless
the recipe's `data.unused` lets it go.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from data.sources.json_rows import BadRow

SYSTEM = ("system", "system_prompt", "system_message")
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
LEARNT = ("weight", "train", "trainable", "training", "loss", "loss_mask")
"""Keys of a turn that is learnt where they hold; `MASKED`: where they do not."""
MASKED = ("masked", "mask")
MEANINGFUL = frozenset(
    {*SYSTEM, *THOUGHTS, *LEARNT, *MASKED, "history", "tools", "functions", "tool_calls", "function_call"}
    | {"sample_weight", "loss_weight", "images", "image", "videos", "audios", "audio", "documents"}
    | {"chat_template_kwargs"}
)
"""Columns and keys that say something about what is learnt, or from what."""


def empty(value: Any) -> bool:
    """Whether a value says nothing, as every column that a table must fill does."""
    return value is None or (isinstance(value, str | list | dict) and not value)


@dataclass
class Reading:
    """What a recipe wants of rows, and `unused`: how often each key was left aside.

    `ignore` is what may be, though it has a meaning: names, or None for all. `known` are columns read elsewhere.
    """

    strip_reasoning: bool = True
    ignore: frozenset[str] | None = frozenset()
    known: frozenset[str] = frozenset()
    unused: Counter[str] = field(default_factory=Counter)

    def count(self, name: str) -> None:
        self.unused[name] += 1

    def skips(self, name: str) -> bool:
        """Whether the recipe names it as not to be used."""
        return self.ignore is not None and not self.ignore.isdisjoint((name, name.rpartition(".")[2]))

    def lets_go(self, name: str) -> bool:
        return self.ignore is None or self.skips(name)

    def leave(self, name: str, where: str, why: str = "") -> None:
        """Count a key that has a meaning, or raise BadRow."""
        if not self.lets_go(name):
            short = name.rpartition(".")[2]
            what = f"{name!r} would change what is learnt, and {why or 'is not used in this format'}"
            fix = f"take it out of the row, or let it go: data.unused: [{short}]"
            raise BadRow(what, where=where, fix=fix)
        self.count(name)

    def left(self, row: dict[str, Any], names: Iterable[str], where: str, of: str = "") -> None:
        """What of a row, or of a part of it, nothing has read."""
        for name in names:
            if empty(row[name]):
                continue
            if name in MEANINGFUL:
                self.leave(f"{of}{name}", where)
            else:
                self.count(f"{of}{name}")
