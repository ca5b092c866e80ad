"""What a recipe names: it is there, it can be read, and the model suits what is asked of it: on one screen."""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from common.benchmark.folder import Folder, benchmark_folder, is_url
from common.benchmark.layouts import GRADED, read_benchmark
from common.errors import UserError
from common.files import real
from common.progress import log
from common.schema import Section, is_remote
from data.config import DataConfig
from eval.config import EvalConfig
from pipeline.recipe.schema import Recipe
from pipeline.recipe.source import Key, Source
from pipeline.run.children import ChildFailed, ask
from pipeline.run.fetching import is_remote_rows
from pipeline.run.records import is_input


def dotted(key: Key) -> str:
    return ".".join(map(str, key))


def placed(source: Source, key: Key, what: str) -> str:
    """A problem as every list of them says it: file and line, dotted key, sentence."""
    return f"{source.place(key)}: {dotted(key)}: {what}"


def lacking(recipe: Recipe, source: Source) -> list[str]:
    """What the recipe names and this machine does not have, or cannot read, one line each."""
    lines = []
    for key, path in inputs(recipe):
        if not os.path.exists(path):
            lines.append(placed(source, key, f"{path} does not exist"))
        elif key == ("model", "path") and not os.path.isfile(os.path.join(path, "config.json")):
            what = f"{path} has no config.json; name a folder in Hugging Face layout"
            lines.append(placed(source, key, what))
    return lines or [placed(source, key, what) for key, what in unreadable(recipe)]


def check_paths(recipe: Recipe, source: Source) -> None:
    """Model, rows and benchmark are there and can be read: without them there is not even a fingerprint. Raises
    UserError that lists what is not, with its lines."""
    lines = lacking(recipe, source)
    if lines:
        raise UserError(
            "the recipe names what is not there\n" + "\n".join(f"  {line}" for line in lines),
            fix="paths are relative to the recipe file; fetch a model with: hf download NAME --local-dir DIR",
        )


def check_apart(section: Section, out: Path) -> None:
    """UserError where `out` lies in what the section reads: results would be a part of what they come from."""
    for key, path in inputs(section):
        if key[-1] != "baseline" and _reaches(real(path), _pattern(section, key), real(out)):
            what = f"the results would lie in what {dotted(key)} reads: {path}"
            raise UserError(what, where=str(out), fix="name another place with --runs DIR (a stage alone: --out DIR)")


def _pattern(section: Section, key: Key) -> str:
    """Which files of a folder are read; "": all of them."""
    holder: Any = section
    for part in key[:-1]:
        holder = holder[part] if isinstance(part, int) else getattr(holder, part)
    return getattr(holder, "files", "")


def _reaches(folder: Path, pattern: str, out: Path) -> bool:
    """Whether a file somewhere in `out` can be one of those that `pattern` takes of a folder."""
    if not folder.is_dir() or not out.is_relative_to(folder):
        return False
    names, parts = out.relative_to(folder).parts, (pattern or "**").split("/")
    if "**" in parts:
        parts = parts[: parts.index("**")]
    elif len(parts) <= len(names):
        return False
    return all(fnmatch(name, part) for name, part in zip(names, parts, strict=False))


def inputs(section: Section, key: Key = ()) -> Iterator[tuple[Key, str]]:
    """(key, path) of every input that a section names on this machine, in order of the schema."""
    for name, info in type(section).model_fields.items():
        yield from _inputs(getattr(section, name), (*key, name), is_input(info))


def _inputs(value: Any, key: Key, is_path: bool) -> Iterator[tuple[Key, str]]:
    if isinstance(value, Section):
        yield from inputs(value, key)
    elif isinstance(value, tuple):
        for i, each in enumerate(value):
            yield from _inputs(each, (*key, i), is_path)
    elif is_path and isinstance(value, str) and not _elsewhere(key, value):
        yield key, value


def _elsewhere(key: Key, path: str) -> bool:
    """Whether a path names something that is fetched, or made by the run itself."""
    if key[:2] == ("data", "sources"):
        return is_remote_rows(path)
    return is_url(path) or (key == ("model", "path") and is_remote(path)) or (key[-1] == "baseline" and path == "base")


def unreadable(recipe: Recipe) -> Iterator[tuple[Key, str]]:
    """(key, sentence) of benchmarks that are there and are none, or lead out of their folder."""
    for section, name in ((recipe.data, "data"), (recipe.eval, "eval")):
        if section is None:
            continue
        try:
            check_benchmark(section)
        except UserError as error:
            yield (name, "benchmark"), f"{error.what} ({error.where}): {error.fix}"


def check_benchmark(section: Section) -> None:
    """The benchmark that a section names can be read, and whoever digests its folder stays inside; else UserError."""
    if isinstance(section, DataConfig) and section.benchmark is not None:
        _check(benchmark_folder(section.benchmark), ("prompt",))
    elif isinstance(section, EvalConfig) and not is_url(section.benchmark):
        _check(benchmark_folder(section.benchmark, section.dataset), GRADED)


def _check(folder: Folder, needs: tuple[str, ...]) -> None:
    read_benchmark(folder, needs)
    folder.check_links()


def check_model(recipe: Recipe, source: Source) -> None:
    """UserError where the model is of no known family or lacks a target; what else does not fit is said."""
    folder, train = recipe.model.path, recipe.train
    if not os.path.isfile(os.path.join(folder, "config.json")):
        return
    asked = train.lora.targets if train.method == "lora" and train.adapter is None else None
    lengths = {"data.max_length": recipe.data.max_length, "serve.max_length": recipe.serve.max_length}
    answer = ask("models.folder.fit", {"path": folder, "targets": asked, "lengths": lengths}, dict(os.environ))
    if answer.code:
        raise ChildFailed("check", answer.code)
    found = answer.said
    for each in found:
        if not each["fatal"]:
            log(f"warning: {placed(source, tuple(each['key'].split('.')), each['what'])}")
    if lines := [placed(source, tuple(each["key"].split(".")), each["what"]) for each in found if each["fatal"]]:
        raise UserError("the model does not suit the recipe\n" + "\n".join(f"  {line}" for line in lines))
