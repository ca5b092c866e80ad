"""A copy of a recipe for another place: comments stay, and paths that were relative to it still lead to their files."""

import os
from pathlib import Path

import yaml

from common.schema import Section
from pipeline.recipe.plain_yaml import compose
from pipeline.recipe.schema import SHIPPED, Recipe, shipped_folder
from pipeline.recipe.source import read_text
from pipeline.recipe.suggest import sections_in
from pipeline.run.records import is_input


def copied(recipe: Path) -> str:
    """The text of `recipe` with relative paths rewritten: `recipes:...` for shipped files, absolute for others."""
    text = read_text(recipe)
    node = compose(text, lambda line: f"{recipe}:{line}")
    for scalar in sorted(_paths(node, Recipe), key=lambda found: -found.start_mark.index):
        path = (recipe.parent / scalar.value).resolve()
        if not os.path.isabs(scalar.value) and path.exists():
            text = text[: scalar.start_mark.index] + _spelled(path) + text[scalar.end_mark.index :]
    return text


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
        field = section.model_fields.get(key.value)
        if field is None:
            continue
        if isinstance(value, yaml.ScalarNode) and is_input(field):
            found.append(value)
        for inner in sections_in(field.annotation):
            found += _paths(value, inner)
    return found
