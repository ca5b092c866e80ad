"""Jinja for chat templates, which come with a model and are nobody's own: sandboxed, bounded, on a pinned day.

What a template may use is what transformers gives it: loop controls, `raise_exception`, `tojson`, `namespace`,
`{% generation %}`. All that it does counts against a budget (`bounds`), so that a template that never ends is an error
at once, the same on every machine. `strftime_now` tells the pinned day, whatever the day is; nothing is left to chance.
"""

import datetime
import functools
import json
from collections.abc import Callable
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from models.text.bounds import CALL, STEP, Budget, method_of

_LEFT_OUT = ("random", "urlize", "pprint")
"""Filters of chance, or whose results can be of any size; no chat template needs them."""
_UNUSED = frozenset({"encode", "translate", "maketrans", "expandtabs", "format_map", "fromkeys", "to_bytes"})
"""Methods, likewise."""


class _Counted(NodeTransformer):
    """Every loop walks through `Budget.counted`; what operators and brackets make is measured."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        said = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        cost: list[nodes.Expr] = [nodes.Const(1 + said // STEP)]
        node.iter = nodes.Filter(node.iter, "_counted", cost, [], None, None, lineno=node.lineno)
        return node

    def _made(self, node: Any) -> nodes.Filter:
        self.generic_visit(node)
        return nodes.Filter(node, "_made", [], [], None, None, lineno=node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        return self._made(node)

    def visit_List(self, node: nodes.List) -> nodes.Expr:
        return node if all(isinstance(one, nodes.Const) for one in node.items) else self._made(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Filter:
        return self._made(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        plain = node.ctx != "load" or all(isinstance(one, nodes.Const) for one in node.items)
        return node if plain else self._made(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        if isinstance(node.arg, nodes.Slice):
            return self._made(node)
        return self.generic_visit(node)  # type: ignore[return-value]


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

    def __repr__(self) -> str:
        return "<Namespace>"


def _public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateError(f"the namespace cannot hold {name!r}")


def _raise(message: str) -> None:
    raise TemplateError(message)


def _as_dict(*parts: Any, **values: Any) -> dict[Any, Any]:
    return dict(*parts, **values)


class Sandbox(ImmutableSandboxedEnvironment):
    """`day` is what `strftime_now` tells, at midnight; `dated` says whether a template has asked."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, day: datetime.date):
        self.budget, self.dated = Budget(), False
        extensions = [_Generation, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=self._shown)
        self.moment = datetime.datetime.combine(day, datetime.time())
        self.filters |= {"tojson": self._to_json}
        self.filters = {name: self._bounded(name, one) for name, one in self.filters.items() if name not in _LEFT_OUT}
        self.filters["_counted"] = pass_context(lambda _, items, cost: self.budget.counted(items, cost))
        self.filters["_made"] = pass_context(lambda _, value: self.budget.made(value))
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise, "strftime_now": self._now, "dict": _as_dict, "namespace": _Names}

    def _now(self, form: str) -> str:
        self.dated = True
        return self.moment.strftime(form)

    def _shown(self, value: Any) -> Any:
        return self.budget.shown(value)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        how: Any = {"ensure_ascii": ensure_ascii, "separators": separators, "sort_keys": sort_keys}
        if indent is None and separators is None:
            return json.dumps(value, **how)
        self.budget.check_call("round", "", (indent or 0, *(separators or ())), {})
        parts, size = [], 0
        for part in json.JSONEncoder(indent=indent, **how).iterencode(value):
            parts.append(part)
            self.budget.fits(size := size + len(part))
        return "".join(parts)

    def _bounded(self, name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
        """A filter of Jinja's, its arguments looked at before and its result after."""
        own = 1 if hasattr(filter_, "jinja_pass_arg") else 0  # Jinja's own argument, the first

        @functools.wraps(filter_)
        def bounded(*given: Any, **named: Any) -> Any:
            first, values = given[:own], [self.budget.listed(one) for one in given[own:]]
            if values:
                self.budget.check_call(name, values[0], tuple(values[1:]), named)
            return self.budget.made(filter_(*first, *values, **named))

        return bounded

    def _generate(self, source: nodes.Template, *rest: Any, **more: Any) -> str:
        return super()._generate(_Counted().visit(source), *rest, **more)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _UNUSED and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None or value.__name__ in _UNUSED:
            return None

        def bounded(*given: Any, **named: Any) -> str:
            self.budget.check_format(value.__self__, given, named)
            return wrapped(*given, **named)

        return bounded

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.check_operator(operator, left, right)
        return self.budget.made(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend(CALL)
        if (method := method_of(obj)) is not None:
            args = tuple(map(self.budget.listed, args))
            self.budget.check_call(*method, args, kwargs)
        return self.budget.made(super().call(context, obj, *args, **kwargs))
