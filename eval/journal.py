"""Rows of results, one JSON object a line, each on disk before the next is begun: a killed run loses none of them."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from common.files import write_text

Sample = dict[str, Any]


def _key(row: Sample) -> tuple[str, int]:
    return row["task_id"], row["sample"]


def _line(row: Sample) -> str:
    return json.dumps(row) + "\n"


class Journal:
    """Appends rows keyed by (task_id, sample); opening it again finds every whole row and drops a torn last one."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        self.rows: dict[tuple[str, int], Sample] = {}
        content = path.read_bytes() if path.exists() else b""
        for line in content.split(b"\n")[:-1]:
            try:
                row = json.loads(line)
                self.rows.setdefault(_key(row), row)
            except (ValueError, KeyError, TypeError):
                continue
        if content and not content.endswith(b"\n"):
            self.sort()
        self.file = open(path, "ab")

    def append(self, rows: list[Sample]) -> None:
        """Add rows whose keys are new, durably. Any thread may call this; `rows` is replaced, never changed."""
        with self.lock:
            fresh = [row for row in rows if _key(row) not in self.rows]
            if not fresh:
                return
            self.file.write("".join(map(_line, fresh)).encode())
            self.file.flush()
            os.fsync(self.file.fileno())
            self.rows = self.rows | {_key(row): row for row in fresh}

    def sort(self) -> None:
        """Rewrite the file in order of (task_id, sample)."""
        write_text(self.path, "".join(_line(self.rows[key]) for key in sorted(self.rows)))

    def close(self) -> None:
        self.file.close()
        self.sort()
