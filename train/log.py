"""The training log: one JSON line per logged step, cut back to the checkpoint when a run resumes."""

import json
import os
from pathlib import Path
from typing import Any

from common.files import write_text


class TrainingLog:
    def __init__(self, path: Path, step: int):
        """Open `path`, keeping only lines up to `step`, the checkpoint from which the run goes on."""
        kept = [line for line in read_log(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = open(path, "a", encoding="utf-8")

    def write(self, **line: Any) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Whole lines of the log; a line that a crash cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
