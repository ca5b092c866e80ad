"""Rows of results, one JSON object a line, each on disk before the next is begun: a killed run loses none of them.

Each line has a checksum: one that went bad on the disk is no row, and is made again.
"""

import json
import os
import threading
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from common.files import write_text

Sample = dict[str, Any]
CHECKSUM = "crc32"


def _key(row: Sample) -> tuple[str, int]:
    return row["task_id"], row["sample"]


def _line(row: Sample) -> str:
    return json.dumps({**row, CHECKSUM: _checksum(row)}) + "\n"


def _checksum(row: Sample) -> str:
    return f"{zlib.crc32(json.dumps(row, sort_keys=True).encode()):08x}"


def _rows(lines: list[bytes]) -> Iterator[Sample]:
    """Those of whole lines; where none has a checksum, an earlier version wrote them."""
    found: list[tuple[Sample, str | None]] = []
    for line in lines:
        try:
            row = json.loads(line)
            _key(row)
            found.append((row, row.pop(CHECKSUM, None)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    checked = any(noted is not None for _, noted in found)
    return (row for row, noted in found if not checked or noted == _checksum(row))


class Journal:
    """Appends rows keyed by (task_id, sample); opening it again finds every whole row and drops a torn last one."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        self.rows: dict[tuple[str, int], Sample] = {}
        content = path.read_bytes() if path.exists() else b""
        for row in _rows(content.split(b"\n")[:-1]):
            self.rows.setdefault(_key(row), row)
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

    def keep(self, keys: Container[tuple[str, int]]) -> None:
        """Leave out the rows of all other keys."""
        kept = {key: row for key, row in self.rows.items() if key in keys}
        if len(kept) < len(self.rows):
            self.rows = kept
            self.file.close()
            self.sort()
            self.file = open(self.path, "ab")

    def sort(self) -> None:
        """Rewrite the file in order of (task_id, sample)."""
        write_text(self.path, "".join(_line(self.rows[key]) for key in sorted(self.rows)))

    def close(self) -> None:
        self.file.close()
        self.sort()
