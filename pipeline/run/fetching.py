"""Where a recipe's model and rows lie on this machine; what lies elsewhere is fetched by a process of its own."""

import os
from typing import Any

from common.errors import UserError
from common.schema import is_remote
from data.config import DataConfig, Source, ending
from pipeline.run.children import ChildFailed, ask


def local_folder(path: str, revision: str | None = None, staging: str | None = None) -> str:
    """The folder of a model: `path` itself, or what a Hub id or URL was fetched to. Raises UserError for a revision of
    a folder."""
    if not is_remote(path):
        if revision is not None:
            what = "a revision is of a Hub id, and the model is a folder"
            raise UserError(what, where="model.revision", fix="leave it out, or name a Hub id")
        return path
    return _fetched("models.weights.fetch", {"path": path, "revision": revision, "staging": staging})


def _fetched(module: str, job: dict[str, Any]) -> str:
    answer = ask(module, job, dict(os.environ))
    if answer.code:
        raise ChildFailed("fetch", answer.code)
    return answer.said


def is_remote_rows(path: str) -> bool:
    """Whether rows are a Hub dataset's or behind a URL: `rows/train.jsonl` is a file, here or missing."""
    return is_remote(path) and ("://" in path or not ending(path))


def local_rows(config: DataConfig) -> DataConfig:
    """The same sources on this machine; where they came from is no part of a result's identity."""
    return config.model_copy(update={"sources": tuple(_local(i, each) for i, each in enumerate(config.sources))})


def _local(number: int, source: Source) -> Source:
    asked = {key: getattr(source, key) for key in ("name", "split", "revision")}
    of_hub = is_remote_rows(source.path) and ("://" not in source.path or source.path.startswith("hf://"))
    if not of_hub and (given := next((key for key, value in asked.items() if value is not None), None)):
        what = f"a {given} is of a Hub dataset, and the source is none"
        raise UserError(what, where=f"data.sources.{number}.{given}", fix="leave it out, or name a Hub dataset's id")
    if not is_remote_rows(source.path):
        return source
    path = _fetched("data.sources.fetch", {"path": source.path, **asked})
    return source.model_copy(update={"path": path, **dict.fromkeys(asked)})
