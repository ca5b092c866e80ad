"""The training log: one JSON line per logged step, cut back to the checkpoint when a run resumes."""

import json
import os
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_text


class TrainingLog:
    def __init__(self, path: Path, step: int):
        """Open `path`, keeping only lines up to `step`, the checkpoint from which the run goes on."""
        kept = [line for line in read_log(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = open(path, "a", encoding="utf-8")

    def write(self, **line: Any) -> None:
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Whole lines of the log; one that a crash cut short is left out. Raises UserError naming a damaged one."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            fix = "delete this line: it only reports"
            raise UserError("the training log is damaged", where=f"{path}:{number}", fix=fix) from error
    return found
