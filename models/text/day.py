"""The day that a chat template is told: noted beside what was trained on it, so that a server tells it the same."""

import datetime
import json
from pathlib import Path
from typing import Any

from common.digests.model import NOTE
from common.errors import UserError
from common.files import read_json

DAY = "2024-07-26"
"""What a template that asks for today's date is told, unless another day is pinned."""


def note_of(day: str) -> bytes:
    return (json.dumps({"date": day}) + "\n").encode()


def noted_day(folder: str | Path) -> str | None:
    """The day in a folder's note; None where there is no note. Raises UserError for one that says no day."""
    path = Path(folder) / NOTE
    if not path.is_file():
        return None
    try:
        content: Any = read_json(path)
        return datetime.date.fromisoformat(content["date"]).isoformat()
    except (ValueError, TypeError, KeyError):
        fix = f"write {note_of(DAY).decode().strip()} there, with the day of the data trained on, or remove it"
        raise UserError("the note does not say a day", where=str(path), fix=fix) from None
