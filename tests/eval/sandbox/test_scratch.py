"""What a killed run leaves in the temporary folder is removed by the next one; what a living one holds is not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eval.sandbox import scratch
from tests.processes import descendants_of, left_of

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys
from eval.sandbox import scratch
with scratch.folder() as path:
    open(path + "/nonce", "w").write("secret")
    print(path, flush=True)
    sys.stdin.read()
"""


def _env(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def test_the_dead_are_swept_and_the_living_are_not(tmp_path: Path) -> None:
    foreign = tmp_path / (scratch.PREFIX + "link")
    (tmp_path / "kept").mkdir()
    foreign.symlink_to(tmp_path / "kept")
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD],
            cwd=ROOT,
            env=_env(tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    dead, living = (Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout)  # type: ignore[misc]
    holders[0].kill()
    holders[0].communicate(timeout=60)
    assert dead.exists()
    with scratch.folder(str(tmp_path)) as own:
        assert not dead.exists() and (living / "nonce").exists() and Path(own).parent == tmp_path
    assert not Path(own).exists() and (tmp_path / "kept").exists()
    holders[1].communicate("", timeout=60)
    assert not living.exists()


def test_a_killed_eval_leaves_no_process_and_the_next_run_no_folder(
    tmp_path: Path, benchmark_folder: Path, top: Callable[[str], str], solve: Callable[[str], str]
) -> None:
    slow = {"task_id": "Prob001_register", "completion": top("initial while (1) ;")}
    good = {"task_id": "Prob002_sum", "completion": solve("Prob002_sum")}
    stored = tmp_path / "stored.jsonl"
    stored.write_text("".join(json.dumps(row) + "\n" for row in (slow, slow, good)))
    config = {"benchmark": str(benchmark_folder), "completions": str(stored), "simulators": 2, "timeout_s": 120}
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"config": config, "inputs": {}, "out": str(tmp_path / "out")}))
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "eval", str(job)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=_env(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    children = set[int]()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob(scratch.PREFIX + "*/*/*/empty")):
        time.sleep(0.05)
    children = descendants_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert children and list(tmp_path.glob(scratch.PREFIX + "*"))
    assert left_of(children) == []
    with scratch.folder(str(tmp_path)) as own:
        assert list(tmp_path.glob(scratch.PREFIX + "*")) == [Path(own)]
    assert os.listdir(tmp_path)
