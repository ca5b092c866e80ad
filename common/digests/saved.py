"""What a stage saved it can check again: a digest of every file of a folder, kept inside it, and a seal on JSON.

`digests.json` is written last and durably: a folder without one was cut off while it was written.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import digest_file, read_json, sync_folder, write_json

DIGESTS = "digests.json"
SEAL = "sha256"


def write_digests(folder: Path) -> None:
    """Bring every file of `folder` to disk, then note their sha256 beside them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        found[path.relative_to(folder).as_posix()] = digest_file(path)
    write_json(folder / DIGESTS, sealed({"files": found}))


def has_digests(folder: Path) -> bool:
    return (folder / DIGESTS).is_file()


def check_digests(folder: Path, fix: str, below: Sequence[str] = ()) -> None:
    """Compare the files of `folder` (`below`: of these entries of it alone) with their digests.

    Raises UserError, with `fix`, naming the first file that is missing, was added or holds other bytes.
    """
    noted = {name: digest for name, digest in _noted(folder, fix).items() if not below or name.split("/")[0] in below}
    there = {
        name
        for path in folder.rglob("*")
        if path.is_file() and (name := path.relative_to(folder).as_posix()) != DIGESTS
        if not below or name.split("/")[0] in below
    }
    for name in sorted(there | set(noted)):
        if name not in there:
            raise UserError(f"the folder is damaged: {name} is missing", where=str(folder), fix=fix)
        if name not in noted:
            raise UserError(f"the folder is damaged: {name} was added to it", where=str(folder), fix=fix)
        if digest_file(folder / name) != noted[name]:
            raise UserError(
                f"the folder is damaged: {name} has other bytes than were saved", where=str(folder), fix=fix
            )


def _noted(folder: Path, fix: str) -> dict[str, str]:
    path = folder / DIGESTS
    try:
        value = read_json(path)
        check_seal(value, path, fix)
        return {name: str(digest) for name, digest in value["files"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the digests cannot be read ({error})", where=str(path), fix=fix) from error


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """`value` with the sha256 of the rest."""
    return {**value, SEAL: _digest(value)}


def check_seal(value: dict[str, Any], path: Path, fix: str) -> None:
    """Raises UserError, with `fix`, where `value` (read from `path`) has a seal that is not its own."""
    if SEAL in value and not has_seal(value):
        raise UserError("the file is damaged: its content is not what was saved", where=str(path), fix=fix)


def has_seal(value: dict[str, Any]) -> bool:
    """Whether `value` has a seal, and it is its own."""
    return value.get(SEAL) == _digest({key: each for key, each in value.items() if key != SEAL})


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
