"""Rows that lie elsewhere: the Hub's client against a server that speaks its protocol, and URLs."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from common.errors import UserError
from data.config import Source
from data.sources.fetch import fetch
from data.sources.files import rows_of
from tests.hub import SHA, Hub

ROOT = Path(__file__).parents[2]
TRAIN = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(6)]
TEST = [{"prompt": "q", "completion": "d"}]


def lines(rows: Iterable[Any]) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def table(rows: list[dict[str, str]]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.fixture
def serve() -> Iterator[Callable[..., Hub]]:
    started: list[Hub] = []

    def start(files: dict[str, bytes], repo: str = "org/rows", **more: str) -> Hub:
        started.append(Hub(repo, files, "datasets", **more))
        return started[-1]

    yield start
    for hub in started:
        hub.close()


def environment(folder: Path, hub: Hub | str, **more: str) -> dict[str, str]:
    endpoint = hub if isinstance(hub, str) else hub.url
    clean = {name: value for name, value in os.environ.items() if name not in ("TAPEOUT_DEBUG", "HF_HUB_OFFLINE")}
    places = {"HF_HOME": str(folder / "hf"), "XDG_CACHE_HOME": str(folder / "kept"), "PYTHONPATH": str(ROOT)}
    return {**clean, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **places, **more}


def ask(
    folder: Path, hub: Hub | str, env: dict[str, str] | None = None, **job: str
) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as the conductor does: the Hub's client reads its environment when it is imported."""
    path = folder / "job.json"
    path.write_text(json.dumps({"path": "org/rows"} | job))
    command = [sys.executable, "-m", "data.sources.fetch", str(path)]
    environ = environment(folder, hub, **(env or {}))
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False)


def rows_at(done: subprocess.CompletedProcess[str]) -> list[Any]:
    assert done.returncode == 0, done.stderr
    return [row for _, row in rows_of(Source(path=json.loads(done.stdout)))]


FILES = {
    "README.md": b"# rows\n",
    "data/train-0.jsonl": lines(TRAIN[:4]),
    "data/train-1.jsonl": lines(TRAIN[4:]),
    "data/test-0.jsonl": lines(TEST),
}


def test_a_split_of_a_dataset_is_fetched_once_and_found_again_offline(
    tmp_path: Path, serve: Callable[..., Hub]
) -> None:
    hub = serve(FILES)
    first = ask(tmp_path, hub)
    assert rows_at(first) == TRAIN and f"org/rows at {SHA[:12]}" in first.stderr
    folder = Path(json.loads(first.stdout))
    assert [where.removeprefix(str(folder)) for where, _ in rows_of(Source(path=str(folder)))][3:5] == [
        "/data/train-0.jsonl:4",
        "/data/train-1.jsonl:1",
    ]
    hub.asked.clear()
    assert ask(tmp_path, hub).stdout == first.stdout
    assert not any("resolve" in line for line in hub.asked), "nothing is fetched again"
    for env, where in (({"HF_HUB_OFFLINE": "1"}, hub), ({}, "http://127.0.0.1:9")):
        offline = ask(tmp_path, where, env)
        assert offline.stdout == first.stdout and "using the copy" in offline.stderr, offline.stderr
    assert rows_at(ask(tmp_path, hub, path="hf://datasets/org/rows", split="test")) == TEST


def test_a_branch_that_moves_is_read_anew_and_a_commit_is_not(tmp_path: Path, serve: Callable[..., Hub]) -> None:
    hub = serve(FILES)
    before = ask(tmp_path, hub)
    hub.files, hub.sha = FILES | {"data/train-0.jsonl": lines(TEST)}, "f" * 40
    after = ask(tmp_path, hub)
    assert rows_at(after) == [*TEST, *TRAIN[4:]] and after.stdout != before.stdout
    assert rows_at(before) == TRAIN


def test_configurations_and_slices(tmp_path: Path, serve: Callable[..., Hub]) -> None:
    card = b"---\nconfigs:\n- config_name: a\n  data_files: a.parquet\n- config_name: b\n  data_files: b.csv\n---\n"
    hub = serve({"README.md": card, "a.parquet": table(TRAIN), "b.csv": b"prompt,completion\nq,d\n"})
    assert rows_at(ask(tmp_path, hub, name="a")) == TRAIN
    assert rows_at(ask(tmp_path, hub, name="b", revision="main")) == TEST
    assert rows_at(ask(tmp_path, hub, name="a", split="train[1:3]")) == TRAIN[1:3]
    done = ask(tmp_path, hub)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "Config name is missing" in done.stderr and "'a', 'b'" in done.stderr and "data.sources.name" in done.stderr


def test_files_of_another_kind_go_through_the_library(tmp_path: Path, serve: Callable[..., Hub]) -> None:
    hub = serve({"train.txt": b"module m;\nendmodule\n"})
    assert rows_at(ask(tmp_path, hub)) == [{"text": "module m;"}, {"text": "endmodule"}]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"path": "org/other"}, "the Hub does not give this dataset"),
        ({"revision": "v9"}, "the Hub does not give this dataset"),
        ({"split": "dev"}, "no split 'dev'"),
        ({"split": "train[1:x]"}, "the rows cannot be fetched"),
        ({"path": "hf://datasets/org/rows/data/train-0.jsonl"}, "not the name of a dataset"),
    ],
)
def test_what_the_hub_does_not_have(tmp_path: Path, serve: Callable[..., Hub], job: dict[str, str], said: str) -> None:
    done = ask(tmp_path, serve(FILES), None, **job)
    assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, "")
    assert said in done.stderr and "to do:" in done.stderr
    assert not list(tmp_path.rglob("*.partial"))


def test_room_is_asked_for_before_the_first_byte(tmp_path: Path, serve: Callable[..., Hub]) -> None:
    hub = serve(FILES)
    hub.size = 10**15
    done = ask(tmp_path, hub)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "org/rows takes 2000000.0 GB" in done.stderr and "HF_HOME" in done.stderr
    assert not any("resolve" in line and "jsonl" in line for line in hub.asked)


def test_a_file_behind_https_is_fetched_again_only_when_it_changes(
    tmp_path: Path, serve: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    hub = serve({"a.jsonl": lines(TRAIN)})
    url = f"{hub.url}/datasets/org/rows/resolve/main/a.jsonl?download=true"
    place = fetch(url)
    assert [row for _, row in rows_of(Source(path=place))] == TRAIN and place.endswith("/a.jsonl")
    before = os.stat(place).st_ino
    assert fetch(url) == place and os.stat(place).st_ino == before
    hub.files = {"a.jsonl": lines(TEST)}
    assert [row for _, row in rows_of(Source(path=fetch(url)))] == TEST
    with pytest.raises(UserError, match="answers 404"):
        fetch(f"{hub.url}/datasets/org/rows/resolve/main/b.jsonl")
    with pytest.raises(UserError, match="no file of rows"):
        fetch(f"{hub.url}/rows.zip")
    hub.close()
    assert fetch(url) == place
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch(f"{hub.url}/datasets/org/rows/resolve/main/c.jsonl")


def test_files_of_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    (bucket / "a.jsonl").write_bytes(lines(TRAIN))
    (bucket / "b.parquet").write_bytes(table(TEST))
    (bucket / "notes.md").write_text("# not rows")
    assert [row for _, row in rows_of(Source(path=fetch(f"file://{bucket}")))] == [*TRAIN, *TEST]
    assert [row for _, row in rows_of(Source(path=fetch(f"file://{bucket}/b.parquet")))] == TEST
    (bucket / "a.jsonl").write_bytes(lines(TEST))
    assert [row for _, row in rows_of(Source(path=fetch(f"file://{bucket}")))] == [*TEST, *TEST]
    with pytest.raises(UserError, match="no row files here"):
        fetch(f"file://{bucket}/notes.md")


def test_from_the_command_line(tmp_path: Path, serve: Callable[..., Hub], tokenizer_folder: str) -> None:
    hub = serve({"train.jsonl": lines([*TRAIN, b"{\n"])})
    command = [sys.executable, "-m", "tapeout", "data", "--model", tokenizer_folder, "--input", "org/rows"]
    sets = ["--set", "data.bad_rows=drop", "--set", "data.validation=0.0"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        env = environment(tmp_path, hub)
        return subprocess.run([*command, *more], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("--out", str(tmp_path / "out"), *sets)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (figures["kept"], figures["dropped"]) == (6, {"bad row": 1})
    bad = run("--out", str(tmp_path / "bad"))
    assert bad.returncode == 2 and f"rows/org/rows/{SHA[:12]}/default/train/train.jsonl:7" in bad.stderr
    assert run("--show", "1", "--json").returncode == 0
