"""A copy of a recipe for another place, under a name of its own: comments stay, and paths still lead to their files."""

import os
import re
from pathlib import Path

import yaml

from common.schema import Section
from pipeline.recipe.plain_yaml import Dumper, compose
from pipeline.recipe.schema import SHIPPED, Recipe, shipped_folder
from pipeline.recipe.source import read_text
from pipeline.recipe.suggest import sections_in
from pipeline.run.records import is_input


def copied(recipe: Path, target: Path) -> tuple[str, str]:
    """The text of `recipe` for `target`, and the name in it.

    Relative paths are rewritten: `recipes:...` for shipped files, absolute for others. The name is the target's, so
    that the copy's results are not mixed with the original's.
    """
    text = read_text(recipe)
    node = compose(text, lambda line: f"{recipe}:{line}")
    spelled: dict[yaml.ScalarNode, str] = {}
    for scalar in _paths(node, Recipe):
        path = (recipe.parent / scalar.value).resolve()
        if not os.path.isabs(scalar.value) and path.exists():
            spelled[scalar] = _spelled(path)
    written = _name(node)
    name = _own_name(target, written.value if written else "")
    if written is not None:
        spelled[written] = _quoted(name)
    for scalar in sorted(spelled, key=lambda found: -found.start_mark.index):
        text = text[: scalar.start_mark.index] + spelled[scalar] + text[scalar.end_mark.index :]
    return text, name


def _name(node: yaml.Node | None) -> yaml.ScalarNode | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    found = [value for key, value in pairs if key.value == "name" and isinstance(value, yaml.ScalarNode)]
    return found[0] if found else None


def _own_name(target: Path, original: str) -> str:
    """The target's file name, as far as a recipe's name can be so, and not the original's."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target.stem).lstrip("._-") or "recipe"
    return f"{name}-copy" if name == original else name


def _quoted(name: str) -> str:
    """In quotes where YAML would take the name for a number or the like."""
    return yaml.dump(name, Dumper=Dumper).splitlines()[0]


def _spelled(path: Path) -> str:
    shipped = shipped_folder().resolve()
    spelled = f"{SHIPPED}{path.relative_to(shipped)}" if path.is_relative_to(shipped) else str(path)
    return f'"{spelled}"'


def _paths(node: yaml.Node | None, section: type[Section]) -> list[yaml.ScalarNode]:
    """The scalars below `node` that `section` types as InputPath."""
    found: list[yaml.ScalarNode] = []
    if isinstance(node, yaml.SequenceNode):
        return [scalar for item in node.value for scalar in _paths(item, section)]
    if not isinstance(node, yaml.MappingNode):
        return found
    for key, value in node.value:
        field = section.model_fields.get(key.value) if isinstance(key, yaml.ScalarNode) else None
        if field is None:
            continue
        if isinstance(value, yaml.ScalarNode) and is_input(field):
            found.append(value)
        for inner in sections_in(field.annotation):
            found += _paths(value, inner)
    return found
