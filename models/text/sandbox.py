"""Jinja for chat templates, which come with a model and are nobody's own: sandboxed, bounded, on a pinned day.

What a template may use is what transformers gives it: loop controls, `raise_exception`, `tojson`, `namespace`,
`{% generation %}`. Every loop and call counts against a budget and no text grows past a limit, so that a template that
never ends is an error at once, the same on every machine. `strftime_now` tells the pinned day, whatever the day is.
"""

import datetime
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

STEPS, CALL = 1_000_000, 5
"""Turns of loops in one rendering, a call counted as five; a conversation of a thousand turns takes ten thousand."""
LONGEST = 1 << 26
"""Characters of a text, items of a list, bits of a number."""
_WIDE = re.compile(r"%[^a-zA-Z%]*?(\d{7,}|\*)")


class Endless(Exception):
    """The template does more than any conversation needs."""


class Budget:
    """What is left to one rendering; templates may look at every pair of turns."""

    def __init__(self, turns: int = 0) -> None:
        self.left = STEPS + 10 * turns * turns

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Endless(f"more than {STEPS:,} turns of its loops, or calls")

    def counted(self, items: Any) -> Any:
        """What a loop walks; the items themselves where their number is known."""
        if isinstance(items, Sized):
            self.spend(len(items))
            return items
        return self._each(items) if isinstance(items, Iterable) else items

    def _each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(1)
            yield item


def _fits(value: Any) -> Any:
    if isinstance(value, Sized) and len(value) > LONGEST:
        raise Endless(f"a text or list of more than {LONGEST:,} items")
    return value


class _Counted(NodeTransformer):
    """Every loop walks through `Budget.counted`; every `~` is measured."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return nodes.Filter(node, "_fits", [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says; here it shows its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Names(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(self, *parts: Any, **names: Any):
        for name in dict(*parts, **names):
            _public(name)
        super().__init__(*parts, **names)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        super().__setitem__(name, value)


def _public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateError(f"the namespace cannot hold {name!r}")


def _raise(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _as_dict(*parts: Any, **values: Any) -> dict[Any, Any]:
    return dict(*parts, **values)


@pass_context
def _counted(context: Context, items: Any) -> Any:
    assert isinstance(context.environment, Sandbox)
    return context.environment.budget.counted(items)


def _narrow(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's that is not asked for millions of characters."""

    def narrow(*given: Any, **named: Any) -> Any:
        for value in (*given, *named.values()):
            if (isinstance(value, int) and value > LONGEST) or (isinstance(value, str) and _WIDE.search(value)):
                raise Endless("a filter that is asked for millions of characters")
        return filter_(*given, **named)

    return pass_context(lambda _, *given, **named: narrow(*given, **named))


class Sandbox(ImmutableSandboxedEnvironment):
    """`day` is what `strftime_now` tells, at midnight; `dated` says whether a template has asked."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, day: datetime.date):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.budget, self.dated = Budget(), False
        self.moment = datetime.datetime.combine(day, datetime.time())
        self.filters |= {"tojson": _to_json, "_counted": _counted, "_fits": pass_context(lambda _, value: _fits(value))}
        self.filters |= {name: _narrow(self.filters[name]) for name in ("center", "indent", "format")}
        self.globals |= {"raise_exception": _raise, "strftime_now": self._now, "dict": _as_dict, "namespace": _Names}

    def _now(self, form: str) -> str:
        self.dated = True
        return self.moment.strftime(form)

    def _generate(self, source: nodes.Template, *rest: Any, **more: Any) -> str:
        return super()._generate(_Counted().visit(source), *rest, **more)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int) and len(text) * times > LONGEST:
                    raise Endless(f"a text or list of more than {LONGEST:,} items")
        if operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > 4096:
            raise Endless("a number of more than 4,096 bits")
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise Endless("a field of a million characters")
        return _fits(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend(CALL)
        if obj is not self.globals["range"] and any(isinstance(a, int) and a > LONGEST for a in args):
            raise Endless("a call for millions of characters")
        return _fits(super().call(context, obj, *args, **kwargs))
