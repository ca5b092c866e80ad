"""Rows that went bad on the disk are no rows; whole ones are all found again."""

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eval.journal import Journal

ROWS: list[dict[str, Any]] = [
    {"task_id": f"P{i}", "sample": i % 3, "completion": f"module m{i}; // \\ud83d é", "passed": i % 2 == 0}
    for i in range(9)
]


def stored(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    with closing(Journal(path)) as journal:
        return journal.rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(Journal(tmp_path / "rows.jsonl")) as journal:
        journal.append(ROWS)
    return tmp_path / "rows.jsonl"


def test_all_come_back(path: Path) -> None:
    assert list(stored(path).values()) == ROWS


def test_a_line_of_an_earlier_version_counts(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert list(stored(path).values()) == ROWS


@pytest.mark.parametrize("kind", ["one bit", "a digit"])
@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_line_is_left_out_and_no_other(path: Path, kind: str, seed: int) -> None:
    content, chance = bytearray(path.read_bytes()), random.Random(seed)
    at = chance.choice(
        [i for i, byte in enumerate(content) if chr(byte).isdigit() or (kind == "one bit" and byte != 10)]
    )
    content[at] = content[at] ^ 1 if kind == "a digit" else content[at] ^ 1 << chance.randrange(7)
    path.write_bytes(bytes(content))
    found = stored(path)
    assert all(row in ROWS for row in found.values()) and len(found) >= len(ROWS) - 2


def test_verdicts_of_samples_that_are_gone_go_too(path: Path) -> None:
    with closing(Journal(path)) as journal:
        journal.keep({("P3", 0), ("P4", 1)})
        journal.append([{**ROWS[0], "passed": False}])
    assert [row["task_id"] for row in stored(path).values()] == ["P0", "P3", "P4"]
    assert not stored(path)["P0", 0]["passed"]
