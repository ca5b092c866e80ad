"""What the other rooms are asked for a plan: sizes by arithmetic, figures of programs by the compiler of the slice.

The compiler takes minutes, so its answers are kept under what they follow from: the question, config.json, our own
source and the versions of what compiles.
"""

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import digest_file, read_json, write_json
from common.machine.chips import Slice
from common.progress import log
from common.safe_path import ROOT
from pipeline.recipe.schema import Recipe
from pipeline.run.children import ChildFailed, ask
from pipeline.run.records import versions

ROOMS = ("common", "models", "train", "serve")
"""Whose source a compiled program follows from."""


@dataclass(frozen=True)
class Question:
    """A recipe's stage on a slice."""

    stage: str
    slice: Slice

    def sizes(self, recipe: Recipe) -> dict[str, Any]:
        """The stage's part of `models.folder.sizes`' job."""
        if self.stage == "train":
            dtype = "float32" if recipe.train.method == "full" else recipe.model.dtype
            hardware = recipe.hardware.model_dump(mode="json")
            train = recipe.train.model_dump(mode="json", include={"accumulate", "weights"})
            batch = {"hardware": hardware, "batch": recipe.train.batch_size}
            return {"devices": self.slice.chips, "dtype": dtype, **batch, **train}
        serve = recipe.serve.model_dump(mode="json")
        return {"devices": self.slice.chips} | {key: serve[key] for key in ("tp", "replicate", "dtype", "weights")}

    def program(self, recipe: Recipe) -> dict[str, Any]:
        """The job of `train.planned` or `serve.planned`."""
        about = {"model": recipe.model.path, "slice": self.slice.name}
        if self.stage == "serve":
            return {"config": recipe.serve.model_dump(mode="json"), **about}
        hardware = recipe.hardware.model_dump(mode="json")
        about |= {"hardware": hardware, "dtype": recipe.model.dtype, "length": recipe.data.max_length}
        return {"config": recipe.train.model_dump(mode="json"), **about}


def ask_sizes(recipe: Recipe, questions: list[Question], env: dict[str, str]) -> dict[str, Any]:
    job = {"model": recipe.model.path} | {each.stage: each.sizes(recipe) for each in questions}
    return _answer("models.folder.sizes", job, env)


def ask_compiler(recipe: Recipe, question: Question, cache: Path, env: dict[str, str]) -> dict[str, Any]:
    job = question.program(recipe)
    path = cache / f"{_fingerprint(job, Path(recipe.model.path))}.json"
    if path.is_file():
        return read_json(path)
    log(f"{question.stage} on {question.slice.name}: asking the TPU compiler (a minute or more)")
    found = _answer(f"{question.stage}.planned", job, env | question.slice.environment)
    cache.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def _answer(module: str, job: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    answer = ask(module, job, env)
    if answer.code:
        raise ChildFailed("plan", answer.code, keeps=False)
    return answer.said


def _fingerprint(job: dict[str, Any], model: Path) -> str:
    source = [path for room in ROOMS for path in sorted(Path(ROOT, room).rglob("*.py"))]
    compiler = next((d.version for d in importlib.metadata.distributions(name="libtpu")), "")
    parts = [json.dumps(job, sort_keys=True), digest_file(model / "config.json"), json.dumps(versions()), compiler]
    return hashlib.sha256("\n".join([*parts, *map(digest_file, source)]).encode()).hexdigest()[:16]
