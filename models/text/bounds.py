"""What a chat template may use up: turns of loops and calls, and the size of all that it makes.

A value's size is its characters and items, those of a part counted each time that it occurs: so it bounds the text that
the value is shown as, too. What multiplies sizes (`replace`, `join`, `*`, widths) is looked at before it is done.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from string import Formatter
from typing import Any

from jinja2.runtime import LoopContext

STEPS, CALL = 1_000_000, 5
"""Turns of loops in one rendering, a call counted as five; a conversation of a thousand turns takes ten thousand."""
LONGEST = 1 << 24
"""Size of a value, and of all that is shown; eight times that of the conversation where this is more."""
ITEM, STEP = 64, 256
"""Size of an item of a list, and of what is made at the cost of one step."""
BITS = 4096
WIDTHS = frozenset({"center", "ljust", "rjust", "zfill", "indent", "batch", "slice"})
"""Methods and filters whose arguments are widths, or stand in every line."""
CHECKED = WIDTHS | {"replace", "join", "format", "round", "wordwrap"}


class Endless(Exception):
    """The template does more than any conversation needs."""


def size_of(value: Any, most: float = float("inf")) -> int:
    """Characters and items; it stops counting beyond `most`."""
    if isinstance(value, str):
        return len(value)
    total, waiting = 0, [value]
    while waiting and total <= most:
        one = waiting.pop()
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, dict | list | tuple | set):
            total += ITEM * len(one)
            if total <= most:
                waiting += [*one, *one.values()] if isinstance(one, dict) else one
    return total


class Budget:
    """What is left to one rendering of a conversation; templates may look at every pair of turns."""

    def __init__(self, turns: int = 0, size: int = 0) -> None:
        self.longest = max(LONGEST, 8 * size)
        self.left, self.room = STEPS + 10 * turns * turns + size, 4 * self.longest

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Endless(f"more than {STEPS:,} turns of its loops, or calls")

    def fits(self, size: int) -> None:
        if size > self.longest:
            raise Endless(f"a text or list of more than {self.longest:,} characters")

    def made(self, value: Any) -> Any:
        """The value, paid for."""
        if (size := size_of(value, self.longest)) >= STEP:
            self.fits(size)
            self.spend(size // STEP)
        return value

    def shown(self, value: Any) -> Any:
        """The value, as a part of the text."""
        self.room -= len(value) if isinstance(value, str) else size_of(value, self.room)
        if self.room < 0:
            raise Endless(f"a text of more than {self.longest:,} characters")
        return value

    def counted(self, items: Any, cost: int = 1) -> Any:
        """What a loop walks, each turn at that cost; the items themselves where their number is known."""
        if isinstance(items, Sized):
            self.spend(cost * len(items))
            return items
        return self._each(items, cost) if isinstance(items, Iterable) else items

    def _each(self, items: Iterable[Any], cost: int) -> Iterator[Any]:
        for item in items:
            self.spend(cost)
            yield item

    def listed(self, value: Any) -> Any:
        """An iterator's items, for one who will go through them all; any other value as it is."""
        if hasattr(value, "__next__") and not isinstance(value, LoopContext):
            return self.made(list(self.counted(value)))
        return value

    def check_call(self, name: str, text: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Before a method of a text, or a filter on any value."""
        if name not in CHECKED:
            return
        parts = [*given, *named.values()]
        wide = max((abs(one) if isinstance(one, int) else size_of(one) for one in parts), default=0)
        if name == "replace":
            old, new = (str(named.get(key, given[i] if i < len(given) else "")) for i, key in enumerate(("old", "new")))
            self.fits(len(new) * (str(text).count(old) if old else len(str(text)) + 1))
        elif name == "join":
            gap = parts[0] if parts else ""
            items, gap = (text, gap) if isinstance(gap, str) else (gap, text)
            self.fits(size_of(items, self.longest) + size_of(gap) * (len(items) if isinstance(items, Sized) else 0))
        elif name == "format":
            self.check_fields(str(text), given, named)
        elif name == "round" and wide > BITS:
            raise Endless("a number of millions of digits")
        elif name == "wordwrap":
            self.fits(size_of(text) * max((len(one) for one in parts if isinstance(one, str)), default=1))
        elif name in WIDTHS:
            self.fits(wide * (str(text).count("\n") + 1 if isinstance(text, str) else 1))

    def check_fields(self, text: str, *values: Any) -> None:
        """Before `text % values`, or the filter: each field may show all of the values, and be as wide as it says."""
        specs = re.findall(r"%[^a-zA-Z%]*", text)
        if any("*" in spec for spec in specs):
            raise Endless("a field whose width is another value")
        self._fields(specs, values)

    def check_format(self, text: str, *values: Any) -> None:
        """Before `text.format(...)`."""
        specs = [spec or "" for _, field, spec, _ in Formatter().parse(text) if field is not None]
        if any("{" in spec for spec in specs):
            raise Endless("a field whose width is another value")
        self._fields(specs, values)

    def _fields(self, specs: list[str], values: Any) -> None:
        widths = [int(number[:9]) for spec in specs for number in re.findall(r"\d+", spec)]
        self.fits(len(specs) * size_of(values, self.longest) + sum(widths))

    def check_operator(self, operator: str, left: Any, right: Any) -> None:
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(one, str | list | tuple | bytes):
                    self.fits(size_of(one, self.longest) * max(0, times))
            if numbers and left.bit_length() + right.bit_length() > BITS:
                raise Endless(f"a number of more than {BITS:,} bits")
        elif operator == "**" and numbers and left.bit_length() * right > BITS:
            raise Endless(f"a number of more than {BITS:,} bits")
        elif operator == "%" and isinstance(left, str):
            self.check_fields(left, right)


def method_of(call: Callable[..., Any]) -> tuple[str, Any] | None:
    """The name and the text of a text's method."""
    text = getattr(call, "__self__", None)
    return (call.__name__, text) if isinstance(text, str | bytes) else None
