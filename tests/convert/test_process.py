"""The stage as a process: killed at a bad moment, stopped politely, out of space, and run again."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def start(base: Path, adapter: Path, out: Path, limits: str = "", prefix: str = "") -> subprocess.Popen:
    """`limits` come before the command, in a shell; `prefix` is a program that runs it."""
    out.mkdir(exist_ok=True)
    job = out.with_name(out.name + ".json")
    job.write_text(json.dumps({"config": {}, "inputs": {"base": str(base), "adapter": str(adapter)}, "out": str(out)}))
    command = f"{limits}exec {prefix}{shlex.join([sys.executable, '-m', 'convert', str(job)])}"
    return subprocess.Popen(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def await_a_shard(process: subprocess.Popen, out: Path) -> None:
    """Until the finished says that one is finished."""
    finished = out / "progress.jsonl"
    while process.poll() is None and not (finished.exists() and b"\n" in finished.read_bytes()):
        time.sleep(0.0005)


def files(folder: Path) -> dict[str, bytes]:
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "metrics.json"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


@pytest.fixture
def large(make_base, make_adapter) -> tuple[Path, Path]:
    """A base of about 130 MB: writing it takes long enough to be interrupted."""
    base = make_base(vocab_size=1_000_000)
    return base, make_adapter(base)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_run_leaves_nothing_that_looks_complete_and_the_next_one_is_whole(
    large: tuple[Path, Path], convert, tmp_path: Path, how: signal.Signals
):
    out = tmp_path / "interrupted"
    process = start(*large, out)
    while process.poll() is None and not (out / "model" / "model.safetensors.partial").exists():
        time.sleep(0.001)
    process.send_signal(how)
    process.communicate()
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 128 + signal.SIGTERM)
    written = {"model/model.safetensors.partial", "model/model.safetensors", "progress.jsonl", "files.json"}
    assert set(files(out)) <= written | ({".lock"} if how == signal.SIGKILL else set())
    again = start(*large, out)
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    undisturbed, _ = convert(*large)
    assert files(out) == files(undisturbed)
    assert json.loads((out / "metrics.json").read_text())["merged"] == 26


def test_a_killed_run_goes_on_at_the_first_missing_shard(make_base, make_adapter, convert, tmp_path):
    base = make_base(vocab_size=300_000, shard="12KB")
    large = base, make_adapter(base)
    out = tmp_path / "killed"
    process = start(*large, out)
    await_a_shard(process, out)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finished = {p: p.stat().st_mtime_ns for p in (out / "model").glob("*.safetensors")}
    names = [json.loads(line)["file"] for line in (out / "progress.jsonl").read_text().split("\n")[:-1]]
    assert finished and len(finished) < len(list(base.glob("*.safetensors")))
    damaged = sorted(names)[0]
    with open(out / damaged, "r+b") as f:
        f.seek(-1, os.SEEK_END)
        last = f.read(1)[0]
        f.seek(-1, os.SEEK_END)
        f.write(bytes([last ^ 1]))
    again = start(*large, out)
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    kept = [name for name in names if name != damaged]
    assert all((out / name).stat().st_mtime_ns == finished[out / name] for name in kept)
    undisturbed, _ = convert(*large)
    assert files(out) == files(undisturbed)


def test_files_of_another_conversion_are_not_taken_over(make_base, make_adapter, tmp_path):
    base = make_base(vocab_size=300_000, shard="12KB")
    first, second = make_adapter(base, "first"), make_adapter(base, "second", size=0.2)
    out, other = tmp_path / "killed", tmp_path / "other"
    process = start(base, first, out)
    await_a_shard(process, out)
    process.kill()
    process.communicate()
    for folder in (out, other):
        again = start(base, second, folder)
        _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert files(out) == files(other)


def test_write_that_fails_midway_is_one_screen_and_leaves_nothing(make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    out = tmp_path / "out"
    process = start(base, adapter, out, "ulimit -f 100; ")
    printed = process.communicate()[1]
    assert process.returncode == 2, printed
    assert "model.safetensors" in printed and "Traceback" not in printed
    assert files(out) == {}


def test_read_only_target_is_one_screen(make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o500)
    # Root writes where it may not, unless it gives up that one right.
    prefix = "setpriv --bounding-set=-dac_override --inh-caps=-dac_override " if os.geteuid() == 0 else ""
    process = start(base, adapter, out, prefix=prefix)
    printed = process.communicate()[1]
    assert process.returncode == 2, printed
    assert "no permission to read or write here" in printed and str(out) in printed and "Traceback" not in printed
    assert files(out) == {}


def test_disk_without_room_is_told_before_anything_is_written(make_base, make_adapter, convert, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    with open(base / "LICENSE", "wb") as f:
        f.truncate(shutil.disk_usage(tmp_path).free + (1 << 30))
    with pytest.raises(UserError, match="the result takes") as caught:
        convert(base, adapter)
    assert caught.value.where == str(tmp_path / "out") and files(tmp_path / "out") == {}


def test_read_only_base_is_enough(make_base, make_adapter, convert):
    base = make_base()
    adapter = make_adapter(base)
    before = files(base)
    for path in (*base.iterdir(), base):
        os.chmod(path, 0o500 if path.is_dir() else 0o400)
    out, metrics = convert(base, adapter)
    assert metrics["merged"] == 26 and files(base) == before
    os.chmod(base, 0o700)
    assert (out / "model" / "config.json").exists()
