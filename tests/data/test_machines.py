"""Two machines: processes that differ in all that machines differ in write the same shards and read them alike."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.data.test_reading import READER, ROOT, ROWS


def run(place: Path, command: list[str], **env: str) -> str:
    """In `place`, with an environment of its own."""
    known = {name: value for name, value in os.environ.items() if name in ("PATH", "XLA_FLAGS")}
    known |= {"PYTHONPATH": str(ROOT), "HOME": str(place), "TMPDIR": str(place)}
    done = subprocess.run(command, cwd=place, env={**known, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def machine(place: Path, tokenizer: str, cores: str, **env: str) -> tuple[dict[str, str], str]:
    """sha256 of each file that the data stage writes there, and of the first batches."""
    place.mkdir()
    config = {"sources": [{"path": str(ROWS), "limit": 300}], "max_length": 384, "near_duplicates": 0.9}
    out = place / "result"
    out.mkdir()
    job = {"config": {**config, "validation": 0.1}, "inputs": {"model": tokenizer}, "out": str(out)}
    (place / "job.json").write_text(json.dumps(job))
    pinned = ["taskset", "-c", cores, sys.executable]
    run(place, [*pinned, "-m", "data", "job.json"], **env)
    opening = {"folder": str(out / "train"), "batch_size": 4, "max_length": 384, "seed": 3}
    batches = run(place, [*pinned, "-c", READER, json.dumps({"open": opening, "state": None, "steps": 20})], **env)
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())}, batches


def test_two_machines(tmp_path: Path, tokenizer_folder: str) -> None:
    every = sorted(os.sched_getaffinity(0))
    one = machine(tmp_path / "one", tokenizer_folder, str(every[0]), PYTHONHASHSEED="1", TZ="Asia/Tokyo", LC_ALL="C")
    all_cores = ",".join(map(str, every))
    other = machine(tmp_path / "two words", tokenizer_folder, all_cores, PYTHONHASHSEED="2", LC_ALL="C.UTF-8")
    assert one == other
    assert {"dataset.json", "train/00000.array_record", "validation/00000.array_record"} <= set(one[0])
