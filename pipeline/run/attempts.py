"""What becomes of an attempt that was cut off: gone on with, removed where it holds nothing, and never thrown away."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import PARTIAL, read_json
from common.progress import log
from pipeline.run.graph import RESUMES, Step

JOB = "job.json"
MOST_NAMED = 5


def make_way(partial: Path, step: Step) -> None:
    """Leave `partial` as `step` can use it: absent, or holding what this very step had finished.

    Raises UserError where it holds finished work of other settings. What tapeout cannot account for is set aside.
    """
    if not partial.exists():
        return
    job = _job(partial)
    if job is not None and job["fingerprint"] == step.fingerprint and step.stage in RESUMES:
        return
    begun = JOB + PARTIAL  # killed before the job was written: nothing of value
    if job is None and any(path.name != begun for path in partial.iterdir()):
        _set_aside(partial)
    elif job is not None and has_work(partial):
        raise UserError(
            "an attempt with other settings was cut off here, and what it had finished is not thrown away"
            + "".join(f"\n  {line}" for line in differences(job, step)),
            where=str(partial),
            fix="give the settings it was started with to go on, name another folder with --out, or delete this one",
        )
    shutil.rmtree(partial, ignore_errors=True)


def has_work(partial: Path) -> bool:
    """Whether a stage could go on from what is here: a checkpoint, a shard, a sample."""
    found = [path for pattern in RESUMES.values() for path in partial.glob(pattern)]
    return any(path.name.isdigit() if path.is_dir() else path.stat().st_size > 0 for path in found)


def differences(job: dict[str, Any], step: Step) -> list[str]:
    """What tells `step` from the one that wrote `job`, a line each."""
    before, now = _flat(job.get("identity") or {"config": job.get("config")}), _flat(step.identity)
    keys = [key for key in now if before.get(key) != now[key]] + [key for key in before if key not in now]
    lines = [_line(key, before.get(key), now.get(key), step.stage) for key in keys]
    return lines[:MOST_NAMED] + ([f"and {len(lines) - MOST_NAMED} more"] if len(lines) > MOST_NAMED else [])


def _line(key: str, before: Any, now: Any, stage: str) -> str:
    name = key.removesuffix(".digest").replace("config.", f"{stage}.", 1)
    if key.endswith(".digest") and before and now:
        return f"{name}: its content has changed"
    return f"{name}: it was {before}, it is {now}"


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted keys of nested dictionaries."""
    if not isinstance(value, dict):
        return {key: value}
    return {
        name: each for inner, below in value.items() for name, each in _flat(below, f"{key}.{inner}".strip(".")).items()
    }


def _job(partial: Path) -> dict[str, Any] | None:
    try:
        job = read_json(partial / JOB)
        return job if isinstance(job["fingerprint"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _set_aside(partial: Path) -> None:
    name = partial.name.removesuffix(PARTIAL)
    places: Iterator[Path] = (partial.with_name(f"{name}.old-{n}") for n in range(1, 1 << 30))
    place = next(place for place in places if not place.exists())
    partial.rename(place)
    log(f"{partial.name} is of no attempt that can be gone on with: set aside as {place}")
