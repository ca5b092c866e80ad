"""What a result came from: the fingerprint of a step, over content digests of its inputs, and its record.json.

A fingerprint hashes the stage, the version and the values of its configuration, and the content (never the place) of
what it reads.
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from common.digests.known import Digests
from common.digests.results import check_files
from common.digests.saved import SEAL, check_seal, has_seal, sealed
from common.errors import UserError
from common.files import PARTIAL, read_json, write_json
from common.schema import InputMarker, Section
from data.config import Source, listed

RECORD, FILES = "record.json", "files"
FINGERPRINT_LENGTH = 12
_KINDS = {"stage": str, "fingerprint": str, "config": dict, "metrics": dict, "seconds": int | float}
_PACKAGES = (
    "tapeout",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "qwix",
    "orbax-checkpoint",
    "grain",
    "transformers",
    "pydantic",
)


def identity(value: Any, digests: Digests, without: Collection[str] = ()) -> Any:
    """`value` as plain data in which every InputPath that exists is replaced by its content's digest: of a
    folder of rows, by that of the files which are rows."""
    if isinstance(value, Source) and os.path.isdir(value.path):
        place = digests.of_files(listed(value), Path(value.path))
        return identity(value.model_dump(mode="json"), digests) | {"path": {"digest": place}}
    if isinstance(value, Section):
        return {
            name: _input(getattr(value, name), digests) if is_input(info) else identity(getattr(value, name), digests)
            for name, info in type(value).model_fields.items()
            if name not in without
        }
    if isinstance(value, dict):
        return {str(key): identity(inner, digests) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [identity(inner, digests) for inner in value]
    return value


def is_input(field: FieldInfo) -> bool:
    """Whether a field is an InputPath, or one of several things that it may be."""
    return _has_marker([*field.metadata, field.annotation])


def _has_marker(parts: Iterable[Any]) -> bool:
    return any(isinstance(part, InputMarker) or _has_marker(get_args(part)) for part in parts)


def _input(path: Any, digests: Digests) -> Any:
    return {"digest": digests.of(path)} if isinstance(path, str) and os.path.exists(path) else path


def fingerprint(identity_of_step: Any) -> str:
    canonical = json.dumps(identity_of_step, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Revision of the checkout this runs from, `+` when it has changes; None outside of one."""
    here = Path(__file__).resolve().parent
    ask = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def read_record(folder: Path) -> dict[str, Any]:
    """What `write_record` left in `folder`; UserError where that is missing or damaged."""
    path = folder / RECORD
    try:
        record = read_json(path)
        if all(isinstance(record[key], kind) for key, kind in _KINDS.items()):
            check_seal(record, path, _fix(folder))
            return record
        what = "it is no record"
    except FileNotFoundError:
        what = "there is none"
    except OSError as error:
        what = error.strerror or str(error)
    except (ValueError, KeyError, TypeError) as error:
        what = str(error)
    raise UserError(f"no whole record of how this came about ({what})", where=str(path), fix=_fix(folder))


def _fix(folder: Path) -> str:
    """Checkpoints are worth more than what lies beside them."""
    if (folder / "checkpoints").is_dir():
        return f"rename the folder to {folder.name}{PARTIAL}, and run the same command again: it goes on from there"
    return "delete the folder, and run the same command again; or name one that tapeout eval or tapeout run wrote"


def check_result(folder: Path, digests: Digests) -> None:
    """The files of a finished result are what they were. Raises UserError as `check_files` and `read_record` do."""
    check_files(folder, read_record(folder).get(FILES, {}), digests, _fix(folder))


def check_if_ours(folder: Path, digests: Digests) -> bool:
    """The same, where `folder` has a whole record of ours (else False); others' may have any file of that name."""
    try:
        ours = has_seal(read_json(folder / RECORD))
    except (OSError, ValueError, AttributeError, TypeError):
        return False
    if ours:
        check_result(folder, digests)
    return ours


def change_record(folder: Path, record: dict[str, Any]) -> None:
    write_json(folder / RECORD, sealed({key: value for key, value in record.items() if key != SEAL}))


def write_record(
    folder: Path, record: dict[str, Any], started: str, seconds: float, metrics: dict[str, Any], files: dict[str, str]
) -> None:
    """Complete `record` (stage, fingerprint, config, inputs, identity) and write it into `folder`; `files`: as
    `note_files` found them."""
    full = {
        **record,
        "versions": versions(),
        "git": git_revision(),
        "host": {"name": platform.node(), "system": platform.platform(), "cores": os.cpu_count()},
        "devices": metrics.get("devices"),
        "started": started,
        "ended": now(),
        "seconds": round(seconds, 3),
        "metrics": metrics,
        FILES: files,
    }
    change_record(folder, full)
