"""A finished result that is no longer what it was is refused, by name, before it is kept, read, shown or judged."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.digests.known import Digests
from common.digests.results import check_files, note_files, result_digest
from common.digests.saved import write_digests
from common.errors import UserError
from pipeline.run.records import change_record, check_if_ours, check_result, read_record, write_record
from tests.pipeline.conftest import ASSETS, Tapeout

ABOUT = {"stage": "data", "fingerprint": "0" * 12, "identity": {}, "config": {}, "inputs": {}}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """As a stage leaves it: files in folders and beside them, a checkpoint with digests of its own."""
    folder = tmp_path / "result"
    for name in ("train/00000.array_record", "train/00001.array_record", "dataset.json", "metrics.json", "job.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the content of {name}")
    (folder / "checkpoints" / "2").mkdir(parents=True)
    (folder / "checkpoints" / "2" / "array").write_bytes(b"array")
    write_digests(folder / "checkpoints" / "2")
    write_record(folder, ABOUT, "2026-01-01", 1.0, {"rows": 1}, note_files(folder, Digests(), {}))
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (lambda r: flip(r / "train/00001.array_record"), "train/00001.array_record has other bytes"),
    "cut": (lambda r: os.truncate(r / "dataset.json", 3), "dataset.json has other bytes"),
    "empty": (lambda r: (r / "metrics.json").write_bytes(b""), "metrics.json has other bytes"),
    "gone": (lambda r: (r / "train/00000.array_record").unlink(), "train/00000.array_record is missing"),
    "a link to nothing": (
        lambda r: ((r / "dataset.json").unlink(), (r / "dataset.json").symlink_to("nowhere")),
        "dataset.json is missing",
    ),
    "a folder": (lambda r: ((r / "dataset.json").unlink(), (r / "dataset.json").mkdir()), "dataset.json is missing"),
    "one more shard": (lambda r: (r / "train/00002.array_record").write_bytes(b"x"), "was added to a finished result"),
    "the record": (lambda r: flip(r / "record.json"), "not what was saved|no whole record"),
    "the record's figures": (
        lambda r: (r / "record.json").write_text((r / "record.json").read_text().replace('"rows": 1', '"rows": 2')),
        "not what was saved",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(result: Path, kind: str) -> None:
    check_result(result, Digests())
    harm, match = DAMAGE[kind]
    harm(result)
    with pytest.raises(UserError, match=match) as told:
        check_result(result, Digests())
    assert told.value.where.startswith(str(result)) and told.value.fix


def test_what_is_none_of_the_results_own_is_let_be(result: Path) -> None:
    (result / "NOTES.txt").write_text("about it")
    (result / "train" / ".DS_Store").write_bytes(b"x")
    (result / "server.log").write_text("a line more")
    shutil.rmtree(result / "checkpoints")  # an old one, of which convert asks no more
    check_result(result, Digests())


def test_a_damaged_training_is_never_told_to_be_deleted(result: Path) -> None:
    flip(result / "dataset.json")
    with pytest.raises(UserError) as told:
        check_result(result, Digests())
    assert "rename the folder to result.partial" in told.value.fix and "delete" not in told.value.fix


def test_nothing_is_read_twice_and_what_moves_stays_known(result: Path) -> None:
    digests = Digests()
    noted = note_files(result, digests, {"dataset.json": "1" * 64})
    assert noted["dataset.json"] == "1" * 64, "the stage's own word"
    moved = result.rename(result.with_name("moved"))
    digests.moved(result, moved)
    opened: set[str] = set()
    watching = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and watching:
            opened.add(str(arguments[0]))

    sys.addaudithook(watch)  # for good: it is told to look away
    check_files(moved, noted, digests, "")
    again = [path for path in opened if path.startswith(str(moved))]
    check_files(moved, {name: noted[name] for name in noted if name != "dataset.json"}, Digests(), "")
    watching.clear()
    assert again == [] and any(path.startswith(str(moved)) for path in opened), "and it sees what is read"


def test_a_damaged_memory_of_digests_is_no_memory(result: Path, tmp_path: Path) -> None:
    digests = Digests(tmp_path / "memory.json")
    digests.of(result / "train")
    digests.save()
    text = (tmp_path / "memory.json").read_text()
    assert Digests(tmp_path / "memory.json").known == digests.known
    known = next(iter(digests.known.values()))[4]
    (tmp_path / "memory.json").write_text(text.replace(known, known[::-1]))
    assert Digests(tmp_path / "memory.json").known == {}


def test_others_records_mean_nothing(result: Path, tmp_path: Path) -> None:
    for text in ("{}", "[1]", "no JSON", '{"files": {"a": "b"}}'):
        (result / "record.json").write_text(text)
        assert not check_if_ours(result, Digests())
    assert not check_if_ours(tmp_path / "nowhere", Digests())


def test_the_same_result_made_again_is_the_same_input(result: Path) -> None:
    before = result_digest(result, Digests())
    (result / "metrics.json").write_text('{"seconds": 7}')
    change_record(result, read_record(result) | {"ended": "later"})
    assert result_digest(result, Digests()) == before
    flip(result / "dataset.json")
    assert result_digest(result, Digests()) != before


def test_the_commands_refuse(small: Path, tmp_path: Path, tapeout: Tapeout) -> None:
    """Of a recipe and from flags; and a result whose record is gone is not made anew before that is said."""
    assert tapeout("run", small, "--to", "data").returncode == 0
    (folder,) = (tmp_path / "runs" / "small" / "data").iterdir()
    made = ["data", "--model", ASSETS / "tiny-gemma4", "--input", "rows.jsonl", "--out", "d"]
    assert tapeout(*made).returncode == 0
    for place, command in ((folder, ["run", small, "--to", "data"]), (tmp_path / "d", made)):
        flip(place / "dataset.json")
        told = tapeout(*command)
        assert told.returncode == 2 and "dataset.json has other bytes than were saved" in told.stderr
        flip(place / "dataset.json")
        record = (place / "record.json").read_text()
        (place / "record.json").unlink()
        told = tapeout(*command)
        assert told.returncode == 2 and "no whole record" in told.stderr and "start" not in told.stderr
        (place / "record.json").write_text(record)
        assert tapeout(*command).returncode == 0
    train = ["train", "--model", ASSETS / "tiny-gemma4", "--data", "d", "--out", "t"]
    (tmp_path / "d" / "train" / "00001.array_record").write_bytes(b"of another")
    told = tapeout(*train)
    assert told.returncode == 2 and "00001.array_record was added" in told.stderr
    assert json.loads((tmp_path / "d" / "record.json").read_text())["files"]
