"""Does a model suit what a recipe asks of it? `python -m models.folder.fit JOB.json`, before any work, without JAX.

JOB = {"path": DIR, "targets": [...] or null, "lengths": {dotted key: tokens}}; the answer is one JSON list of
{"key": dotted key, "what": sentence, "fatal": whether a run would stop there}.
"""

import sys
from pathlib import Path
from typing import Any

from common.answer import answer
from common.errors import UserError
from models.families import rows
from models.folder.opened import ModelFolder
from models.leaf import Leaf, target_like

Finding = dict[str, Any]


def _adaptable(table: list[Leaf]) -> list[str]:
    """What a recipe's targets can name here: the products of layers."""
    return sorted({leaf.target for leaf in table if leaf.use.product and leaf.use.adaptable})


def _no_target(table: list[Leaf], word: str, known: list[str]) -> str:
    near = target_like(table, word)
    return f"this model has no {word}; {f'did you mean {near}? ' if near else ''}it has {', '.join(known)}"


def _positions(config: dict[str, Any]) -> int | None:
    inner = config.get("text_config")
    found = (inner if isinstance(inner, dict) else config).get("max_position_embeddings")
    return found if isinstance(found, int) else None


def findings(folder: str, targets: list[str] | None, lengths: dict[str, int]) -> list[Finding]:
    """What does not fit, in order of the recipe's sections; an unreadable config.json is the only finding then."""
    try:
        model = ModelFolder(Path(folder))
        table = rows(model.spec, False)
        positions = _positions(model.config)
    except UserError as error:
        what = error.what + (f" ({error.fix})" if error.fix else "")
        return [{"key": "model.path", "what": f"{what}, in {error.where}" if error.where else what, "fatal": True}]
    known = _adaptable(table)
    found = [
        {"key": "train.lora.targets", "what": _no_target(table, each, known), "fatal": True}
        for each in targets or ()
        if each not in known
    ]
    for key, length in lengths.items():
        if positions is not None and length > positions:
            what = f"{length} tokens, and the model was made for {positions} (max_position_embeddings)"
            found.append({"key": key, "what": what, "fatal": False})
    return found


if __name__ == "__main__":
    sys.exit(answer(lambda job: findings(job["path"], job["targets"], job["lengths"])))
