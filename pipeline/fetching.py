"""Where a recipe's model lies on this machine; one that lies elsewhere is fetched by a process of its own."""

import os

from common.errors import UserError
from common.schema import is_remote
from pipeline.children import ChildFailed
from pipeline.gate import ask


def local_folder(path: str, revision: str | None = None, staging: str | None = None) -> str:
    """The folder of a model: `path` itself, or what a Hub id or URL was fetched to."""
    if not is_remote(path):
        if revision is not None:
            what = "a revision is of a Hub id, and the model is a folder"
            raise UserError(what, where="model.revision", fix="leave it out, or name a Hub id")
        return path
    answer = ask("models.fetch", {"path": path, "revision": revision, "staging": staging}, dict(os.environ))
    if answer.returncode:
        raise ChildFailed("fetch", answer.returncode)
    return answer.stdout.strip().splitlines()[-1]
