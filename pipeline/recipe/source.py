"""A recipe's text as a tree of plain values that remembers where each key was written.

`--set a.b=c` edits the tree and is remembered as the place of what it set.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from pipeline.recipe.plain_yaml import DEEPEST, LARGEST, Line, compose, scalar

Key = tuple[str | int, ...]
_MERGE = "<<"
_NUMBER = re.compile("[0-9]{1,9}")


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
        """Apply one `a.b.c=value`; the value is read as YAML, a list is indexed by number. Raises UserError for an
        assignment that is none, or a key below what has none."""
        where = f"--set {assignment}"
        dotted, equals, text = assignment.partition("=")
        parts = dotted.split(".")
        if not equals or not all(parts) or len(parts) > DEEPEST:
            raise UserError("--set takes KEY=VALUE", where=where, fix="for example --set train.lora.rank=16")
        key: Key = ()
        holder: Any = self.tree
        for part in parts[:-1]:
            index = _index(holder, part, key, where)
            if isinstance(holder, dict) and holder.get(part) is None:
                holder[part] = {}
            key, holder = (*key, index), holder[index]
        index = _index(holder, parts[-1], key, where)
        key, holder[index] = (*key, index), _value_of(text, where)
        self.places = {k: place for k, place in self.places.items() if k[: len(key)] != key}
        self.places[key] = where


def _index(holder: Any, part: str, key: Key, where: str) -> Any:
    """`part` as what indexes `holder`, which stands at `key`."""
    if isinstance(holder, dict):
        return part
    dotted = ".".join(map(str, key))
    if not isinstance(holder, list):
        raise UserError(f"{dotted} is a single value, it has no keys", where=where)
    if not _NUMBER.fullmatch(part) or int(part) >= len(holder):
        raise UserError(f"{dotted} is a list of {len(holder)}, numbered from 0", where=where)
    return int(part)


def _value_of(text: str, where: str) -> Any:
    """What a --set gives: any YAML that fits on a command line."""
    try:
        node = compose(text, lambda _: where)
    except UserError as error:
        raise UserError(f"the value cannot be read: {error.what}", where=where, fix=error.fix or "quote it") from None
    return None if node is None else _value(node, (), Source(where, {}), lambda _: where)


def read_text(path: Path) -> str:
    """A file's text. Raises UserError where it is missing, too large, or not UTF-8."""
    with open(path, "rb") as file:
        content = file.read(LARGEST * 4 + 1)  # whatever is longer has more than LARGEST characters
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError("not a text file in UTF-8", where=f"{path} (byte {error.start})") from None


def read_source(path: Path, name: str) -> Source:
    """Read a recipe file; `name` is how errors call it. Raises UserError with its line for what is no recipe."""
    source = Source(name, {})

    def line(number: int) -> str:
        return f"{name}:{number}"

    node = compose(read_text(path), line)
    if node is None:
        return source
    if not isinstance(node, yaml.MappingNode):
        raise UserError("a recipe is a mapping of sections", where=line(node.start_mark.line + 1))
    source.tree = _value(node, (), source, line)
    return source


def _value(node: yaml.Node, key: Key, source: Source, line: Line) -> Any:
    """`node` as plain values; where each key below it stands is noted in `source`."""
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, line)
        result = {}
        for key_node, value_node in node.value:
            inner = (*key, str(key_node.value))
            source.places[inner] = line(key_node.start_mark.line + 1)
            result[inner[-1]] = _value(value_node, inner, source, line)
        return result
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            source.places[(*key, i)] = line(item.start_mark.line + 1)
        return [_value(item, (*key, i), source, line) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    return scalar(node)


def _check_keys(node: yaml.MappingNode, line: Line) -> None:
    """A key is a word, and each stands once."""
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        at = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError("a key is a word", where=line(at), fix="write KEY: VALUE")
        if key_node.value == _MERGE:
            raise UserError("merge keys (<<) are not read in a recipe", where=line(at), fix="write the keys out")
        if key_node.value in seen:
            first = line(seen[key_node.value])
            raise UserError(
                f"{key_node.value} is written twice", where=first if first == line(at) else f"{first} and {at}"
            )
        seen[key_node.value] = at
