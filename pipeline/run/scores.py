"""Stored scores: which one is the current recipe's, and pass@k of other k than a score was stored with.

`tapeout run` notes in the recipe's folder what the recipe resolves to, before it runs anything: a score that is kept
is current as much as one that was just made, and one that a changed recipe has not reached yet is nobody's.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.digests.known import Digests
from common.digests.results import note_files
from common.errors import UserError
from common.files import read_json, write_json
from common.progress import log
from pipeline.recipe.schema import Recipe, load_recipe, resolved_yaml
from pipeline.run.children import ChildFailed, ask
from pipeline.run.gate import SUMMARY
from pipeline.run.graph import Step
from pipeline.run.records import FILES, RECORD, change_record, check_if_ours, read_record

CURRENT = "current.json"
REPLACED = (SUMMARY, "metrics.json")
"""What a new k changes of a score."""


def note_current(root: Path, recipe: Recipe, file: Path, sets: Sequence[str], steps: Sequence[Step]) -> None:
    """Leave in the recipe's folder which results are its own as it is now; the same recipe leaves the same file."""
    said = {
        "recipe": str(file.resolve()),
        "set": list(sets),
        "scored": _scored(recipe),
        "steps": {step.name: step.fingerprint for step in steps},
    }
    if _noted(root) != said:
        write_json(root / CURRENT, said)


def _noted(root: Path) -> dict[str, Any] | None:
    """What was noted last; None where nothing was, or a file that this is not."""
    try:
        said = read_json(root / CURRENT)
        words = [said["recipe"], said["scored"], *said["set"], *said["steps"], *said["steps"].values()]
        return said if all(isinstance(word, str) for word in words) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _scored(recipe: Recipe) -> str:
    """Digest of all that a recipe says but for its words about itself and the verdict on its score."""
    plain = recipe.model_copy(update={"description": ""})
    if plain.eval is not None:
        gate = type(plain.eval.gate)()
        plain = plain.model_copy(update={"eval": plain.eval.model_copy(update={"gate": gate})})
    return hashlib.sha256(resolved_yaml(plain).encode()).hexdigest()


def find_score(where: str, step: str) -> Path:
    """A summary, a folder that eval wrote, or a recipe's folder: then the score of the recipe as it ran last.

    Raises UserError where there is none, where it is not known which is meant, or where its files are no longer what
    eval wrote.
    """
    score = _find(Path(where), where, step)
    if score.is_dir():
        check_if_ours(score, Digests())
    return score


def _find(path: Path, where: str, step: str) -> Path:
    if path.is_file() or (path / SUMMARY).is_file():
        return path
    stored = {record.parent.name: record.parent for record in path.glob(f"{step}/*/{RECORD}")}
    if said := _noted(path):
        return _current(path, step, stored, said)
    if not stored:
        fix = "name a recipe's folder under runs, a folder that eval wrote, or a summary.json"
        raise UserError("no score here", where=where, fix=fix)
    if len(stored) > 1:
        raise UserError(
            f"{len(stored)} scores, and no {CURRENT} that says which is the recipe's as it is now",
            where=where,
            fix=f"run the recipe again (what is done is kept), or name one: {_listed(stored)}",
        )
    return next(iter(stored.values()))


def _current(root: Path, step: str, stored: dict[str, Path], said: dict[str, Any]) -> Path:
    found = stored.get(said["steps"].get(step, ""))
    if found is None:
        again = " ".join(["tapeout run", said["recipe"], *(f"--set {assignment}" for assignment in said["set"])])
        others = f", or name the score that is meant: {_listed(stored)}" if stored else ""
        raise UserError(
            f"the recipe as it ran last has no score ({step}){' yet' if step in said['steps'] else ''}",
            where=str(root),
            fix=f"finish it with: {again}{others}",
        )
    if _has_changed(said):
        log(f"warning: {said['recipe']} has changed since it ran; this score is of the recipe as it ran")
    return found


def _has_changed(said: dict[str, Any]) -> bool:
    """Whether the recipe's file is here and says something else by now that its score depends on."""
    if not Path(said["recipe"]).is_file():
        return False
    try:
        return _scored(load_recipe(said["recipe"], said["set"])) != said["scored"]
    except (UserError, OSError):
        return True


def read_summary(score: Path) -> dict[str, Any]:
    """What a folder's summary.json or a saved file says; UserError where that is no score."""
    path = score / SUMMARY if score.is_dir() else score
    try:
        summary = read_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not a summary: {error}", where=str(path), fix="name a folder that eval has written") from None
    if not isinstance(summary, dict) or not {"per_problem", "per_problem_samples"} <= set(summary):
        raise UserError("this is no score", where=str(path), fix="name the result of an eval, not of its self-test")
    return summary


def pass_at_1(summary: dict[str, Any]) -> float:
    """The mean over problems of the share of samples that passed, whatever k the run reports."""
    samples = summary["per_problem_samples"]
    return sum(passed / samples[task] for task, passed in summary["per_problem"].items()) / len(samples)


def _listed(stored: dict[str, Path]) -> str:
    return ", ".join(map(str, sorted(stored.values())))


def with_wanted_k(step: Step, env: dict[str, str]) -> None:
    """Bring a kept score to the k that its recipe asks for now; its completions and verdicts stay as they are."""
    wanted = step.config.model_dump(mode="json")
    if step.stage != "eval" or wanted["self_test"]:
        return
    record = read_record(step.final)
    begun = FILES in record and SUMMARY not in record[FILES]
    if record["config"].get("k") == wanted["k"] and not begun:
        return
    files = {name: each for name, each in record.get(FILES, {}).items() if name not in REPLACED}
    change_record(step.final, record | {FILES: files})
    answer = ask("eval.score.rescore", {"run": str(step.final), "config": wanted}, env)
    if answer.code:
        raise ChildFailed(step.name, answer.code)
    config = record["config"] | {"k": wanted["k"]}
    # The record last: a run that is killed in between finds no digest of the summary there, and does this again.
    files = note_files(step.final, Digests(), {})
    change_record(step.final, record | {"config": config, "metrics": answer.said, FILES: files})
    log(f"{step.name}: pass@k computed anew from the stored verdicts")
