"""YAML as a recipe uses it: mappings, lists and plain values; everything else is refused, with its line.

Plain scalars are read as YAML 1.2's core schema does where 1.1 hurts: `1e-4` is a number, `on` and dates are words. A
number is decimal: what 1.1 reads otherwise (`010`, `1:00:00`, `1_000`, `0x1F`, `.inf`) stays a word, which no number's
key takes. Tags and merge keys are refused, and what aliases make of a text is counted before it is made.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from common.errors import UserError

LARGEST, MOST_VALUES, DEEPEST = 1 << 18, 10_000, 32
_CHARACTERS = 32
"""So many more of a text weigh as much as a value."""
_HALVES = re.compile("[\ud800-\udfff]")
_CORE = "tag:yaml.org,2002:"
_RULES = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9]{0,17})", list("-+0123456789")),
    "float": (
        r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,4})?|\.[0-9]+(?:[eE][-+]?[0-9]{1,4})?)",
        list("-+0123456789."),
    ),
}
Line = Callable[[int], str]
"""From a line's number, counted from 1, to how an error calls it."""


class Loader(yaml.SafeLoader):
    """SafeLoader with the scalars above."""


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what either version of YAML would take for something else than a word."""


Loader.yaml_implicit_resolvers = {}
Dumper.yaml_implicit_resolvers = {
    first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _first) in _RULES.items():
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(_CORE + _name, re.compile(f"^(?:{_pattern})$"), _first)


def scalar(node: yaml.ScalarNode) -> Any:
    """The plain value that a scalar stands for: None, a bool, an int, a float or a str."""
    kind, text = node.tag.removeprefix(_CORE), node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    return int(text) if kind == "int" else float(text) if kind == "float" else text


def compose(text: str, line: Line) -> yaml.Node | None:
    """The node tree of one document, of bounded size even where its aliases are followed; UserError with its line."""
    if len(text) > LARGEST:
        raise UserError(f"more than {LARGEST >> 10} KiB of text: a recipe is a page or two", where=line(1))
    try:
        _check(text, line)
        return yaml.compose(text, Loader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"not valid YAML: {error.problem}", where=line(at)) from None
    except yaml.reader.ReaderError as error:
        at = text.count("\n", 0, error.position) + 1
        raise UserError("not valid YAML: a character that is not printable", where=line(at)) from None
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {error}", where=line(1)) from None


def _check(text: str, line: Line) -> None:
    """Refuse what the parser's events show: nothing is built yet, and an alias counts as all that it stands for."""
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    total = 0
    for event in yaml.parse(text, Loader):
        where = line(event.start_mark.line + 1)
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, start = opened.pop()
            sizes |= {anchor: total - start} if anchor else {}
        if not isinstance(event, yaml.NodeEvent):
            continue
        if getattr(event, "tag", None) is not None:
            raise UserError("a tag (!...) is not read in a recipe", where=where, fix="write the value; quote a text")
        if isinstance(event, yaml.ScalarEvent) and _HALVES.search(event.value):
            raise UserError("half a character (a lone surrogate)", where=where, fix="write the character itself")
        before = total
        total += 1 + len(getattr(event, "value", "")) // _CHARACTERS
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in opened):
                raise UserError(f"*{event.anchor} stands for something that contains it", where=where)
            total += sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, before))
        elif event.anchor:
            sizes[event.anchor] = total - before
        if total > MOST_VALUES:
            raise UserError(
                f"more than {MOST_VALUES} values, or text of that size: a recipe is a page or two", where=where
            )
        if len(opened) > DEEPEST:
            raise UserError(f"nested more than {DEEPEST} deep", where=where)
