"""The recipe: one YAML file, one section a stage, checked whole before anything runs.

Every problem is reported at once, with its dotted key, its file and line (or the --set), and the nearest valid name.
"""

import difflib
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from common.errors import UserError
from common.schema import Section
from convert.config import ConvertConfig
from data.config import DataConfig
from eval.config import EvalConfig
from models.config import HardwareConfig, ModelConfig
from pipeline.recipe.plain_yaml import Dumper
from pipeline.recipe.source import Key, Source, read_source
from pipeline.recipe.suggest import nearest_key, nearest_value
from serve.config import ServeConfig
from train.config import TrainConfig

S = TypeVar("S", bound=Section)
_NOT = ", not "
SHIPPED = "recipes:"
"""Prefix of a path below the shipped recipes folder, wherever that is installed."""


class Recipe(Section):
    """A run from raw rows to a gated score."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run's folder")
    description: str = Field("", description="What it is for, in one line")
    model: ModelConfig
    data: DataConfig
    train: TrainConfig = TrainConfig()
    convert: ConvertConfig = ConvertConfig()
    serve: ServeConfig = ServeConfig()
    eval: EvalConfig | None = Field(None, description="Left out: the run ends with a model that serves")
    hardware: HardwareConfig = HardwareConfig()


def shipped_folder() -> Path:
    return Path(str(importlib.resources.files("recipes")))


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with tapeout."""
    folder = shipped_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A file, or the name of a shipped recipe. Raises UserError where it is neither."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"no such recipe{hint}", where=name, fix="tapeout recipes lists the shipped ones")


def load_recipe(name: str, assignments: Sequence[str] = ()) -> Recipe:
    """Read, override, validate. Raises UserError listing every problem."""
    return read_recipe(name, assignments)[0]


def read_recipe(name: str, assignments: Sequence[str] = ()) -> tuple[Recipe, Source]:
    """The same, with the source that knows where each key was written."""
    path = find_recipe(name)
    called = path.resolve()
    cwd = Path.cwd()
    source = read_source(path, str(called.relative_to(cwd) if called.is_relative_to(cwd) else path))
    for assignment in assignments:
        source.set(assignment)
    return validate(Recipe, source, called.parent), source


def validate(section: type[S], source: Source, base: Path) -> S:
    """`source` as a `section`, its paths relative to `base`; the types of YAML are taken at their word. Raises
    UserError that lists every wrong key with its line."""
    tree = _expand(source.tree)
    try:
        return section.model_validate_json(json.dumps(tree), strict=True, context={"base": str(base)})
    except ValidationError as error:
        problems = _problems(section, source, error)
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise UserError(f"{count} in {source.name}\n" + "\n".join(f"  {line}" for line in problems))


def _expand(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expand(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner) for inner in value]
    if isinstance(value, str) and value.startswith(SHIPPED):
        return str(shipped_folder() / value.removeprefix(SHIPPED))
    return value


def _problems(section: type[Section], source: Source, error: ValidationError) -> list[str]:
    found: dict[Key, list[str]] = {}
    for detail in error.errors(include_url=False):
        key = _key(detail, source)
        found.setdefault(key, []).append(_message(section, key, detail))
    # A union reports each of its branches: what lies deeper is the branch that was meant.
    deepest = [key for key in found if not any(other[: len(key)] == key and other != key for other in found)]
    return [f"{source.place(key)}: {'.'.join(map(str, key)) or 'recipe'}: {_either(found[key])}" for key in deepest]


def _either(messages: list[str]) -> str:
    """One sentence of what the branches of a union wanted."""
    *others, last = dict.fromkeys(messages)
    wanted = [message.partition(_NOT)[0] for message in others] + [last]
    return " or ".join([wanted[0], *(message.removeprefix("must be ") for message in wanted[1:])])


def _key(detail: ErrorDetails, source: Source) -> Key:
    """The error's location without the names pydantic gives to branches of unions."""
    key: Key = ()
    value: Any = source.tree
    for part in detail["loc"]:
        children: dict[Any, Any] = value if isinstance(value, dict) else {}
        if isinstance(value, list):
            children = dict(enumerate(value))
        if part in children:
            key, value = (*key, part), children[part]
    return (*key, detail["loc"][-1]) if detail["type"] == "missing" else key


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _message(section: type[Section], key: Key, detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "this key is missing"
    if detail["type"] == "extra_forbidden":
        return f"unknown key{nearest_key(section, key)}"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    message = (
        detail["msg"]
        .replace("Input should be", "must be")
        .replace("an object", "a mapping")
        .replace("String should", "must")
    )
    hint = nearest_value(detail) if detail["type"] == "literal_error" else _spelling(detail)
    return f"{message}{_NOT}{_shown(detail['input'])}{hint}"


def _spelling(detail: ErrorDetails) -> str:
    """How to write a value that YAML reads as something else than a person meant."""
    kind, value = detail["type"], detail["input"]
    if kind.startswith(("int_", "float_")) and isinstance(value, str) and not value.isdecimal():
        return "; a number is written in decimal: 10, 0.5 or 1e-4"
    if kind.startswith("int_") and isinstance(value, str) and len(value) > 1 and value.startswith("0"):
        return "; a number is written without leading zeros"
    if kind.startswith("bool_") and isinstance(value, str):
        return "; write true or false"
    return "; quote it" if kind.startswith("string_") and isinstance(value, bool | int | float) else ""


def resolved_yaml(recipe: Section) -> str:
    """The recipe with every default written out, shipped paths as `recipes:...`, fit to be read back."""
    folder = str(shipped_folder()) + "/"

    def portable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: portable(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [portable(inner) for inner in value]
        return SHIPPED + value.removeprefix(folder) if isinstance(value, str) and value.startswith(folder) else value

    return yaml.dump(
        portable(recipe.model_dump(mode="json")), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100
    )
