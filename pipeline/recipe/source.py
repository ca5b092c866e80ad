"""A recipe's text as a tree of plain values that remembers where each key was written.

YAML as its 1.2 core schema reads it where the two differ in ways that hurt: `1e-4` is a number, `on` and `no` are
words, dates are words. `--set a.b=c` edits the tree and is remembered as the place of what it set.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError

Key = tuple[str | int, ...]
_BOOL, _FLOAT, _TIME = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in (_BOOL, _FLOAT, _TIME)]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|nan))$"),
    list("-+0123456789."),
)


@dataclass
class Source:
    """`tree` is what was written; `places` says for each key the file:line or the --set that wrote it."""

    name: str
    tree: dict[str, Any]
    places: dict[Key, str] = field(default_factory=dict)

    def place(self, key: Key) -> str:
        """Where `key`, or the nearest enclosing key that was written, stands."""
        for end in range(len(key), 0, -1):
            if key[:end] in self.places:
                return self.places[key[:end]]
        return self.name

    def get(self, key: Key) -> Any:
        value: Any = self.tree
        for part in key:
            value = value[part]
        return value

    def set(self, assignment: str) -> None:
        """Apply one `a.b.c=value`; the value is read as YAML, a list is indexed by number."""
        where = f"--set {assignment}"
        dotted, equals, text = assignment.partition("=")
        parts = dotted.split(".")
        if not equals or not all(parts):
            raise UserError("--set takes KEY=VALUE", where=where, fix="for example --set train.lora.rank=16")
        key: Key = ()
        holder: Any = self.tree
        for part in parts[:-1]:
            index = _index(holder, part, key, where)
            if isinstance(holder, dict) and holder.get(part) is None:
                holder[part] = {}
            key, holder = (*key, index), holder[index]
        index = _index(holder, parts[-1], key, where)
        key, holder[index] = (*key, index), _scalar(text, where)
        self.places = {k: place for k, place in self.places.items() if k[: len(key)] != key}
        self.places[key] = where


def _index(holder: Any, part: str, key: Key, where: str) -> Any:
    """`part` as what indexes `holder`, which stands at `key`."""
    if isinstance(holder, dict):
        return part
    dotted = ".".join(map(str, key))
    if not isinstance(holder, list):
        raise UserError(f"{dotted} is a single value, it has no keys", where=where)
    if not part.isdigit() or int(part) >= len(holder):
        raise UserError(f"{dotted} is a list of {len(holder)}, numbered from 0", where=where)
    return int(part)


def _scalar(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise UserError("the value is not valid YAML", where=where, fix="quote it") from None


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError("not a text file in UTF-8", where=f"{path} (byte {error.start})") from None


def compose(text: str, name: str) -> yaml.Node | None:
    """The node tree of one YAML document; a syntax error names its line."""
    try:
        return yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"not valid YAML: {error.problem}", where=f"{name}:{line}") from None
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {error}", where=name) from None


def read_source(path: Path, name: str) -> Source:
    """Read a recipe file; `name` is how errors call it."""
    node = compose(read_text(path), name)
    source = Source(name, {})
    if node is None:
        return source
    if not isinstance(node, yaml.MappingNode):
        raise UserError("a recipe is a mapping of sections", where=f"{name}:{node.start_mark.line + 1}")
    source.tree = _value(node, (), source, _Loader(""))
    return source


def _value(node: yaml.Node, key: Key, source: Source, loader: _Loader) -> Any:
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node, source.name)
        loader.flatten_mapping(node)
        result = {}
        for key_node, value_node in node.value:
            inner = (*key, str(key_node.value))
            source.places[inner] = f"{source.name}:{key_node.start_mark.line + 1}"
            result[inner[-1]] = _value(value_node, inner, source, loader)
        return result
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            source.places[(*key, i)] = f"{source.name}:{item.start_mark.line + 1}"
        return [_value(item, (*key, i), source, loader) for i, item in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def _refuse_duplicates(node: yaml.MappingNode, name: str) -> None:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if key_node.value in seen:
            raise UserError(f"{key_node.value} is written twice", where=f"{name}:{seen[key_node.value]} and {line}")
        seen[key_node.value] = line
