"""`python -m STAGE JOB.json`: whatever is wrong with a job is one screen that names its place, and exit code 2.

The stages' own tests run jobs that are right.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.stage import read_parts
from pipeline.run.graph import CONFIGS, INPUTS, STAGES
from tests.test_import_directions import REPO

GOOD: dict[str, dict[str, Any]] = {
    "data": {"config": {"sources": [{"path": "rows.jsonl"}]}, "inputs": {"model": "model"}},
    "train": {"inputs": {"model": "model", "data": "shards"}},
    "convert": {"inputs": {"base": "model", "adapter": "adapter"}},
    "serve": {"inputs": {"model": "model", "name": "mine"}},
    "eval": {"config": {"benchmark": "problems"}, "inputs": {"endpoint": "http://x/v1", "model": "mine"}},
}
WRONG: list[tuple[Any, str]] = [
    ([], "an object with config, inputs and out"),
    (None, "an object with config, inputs and out"),
    ({"out": None}, "an object with config, inputs and out"),
    ({"out": ""}, "an object with config, inputs and out"),
    ({"out": 5}, "an object with config, inputs and out"),
    ({"config": {"lerning_rate": 1}}, "config.lerning_rate"),
    ({"config": []}, "config"),
    ({"config": "x"}, "config"),
    ({"inputs": {"mdoel": "x"}}, "inputs.mdoel"),
    ({"inputs": None}, "inputs"),
    ({"confg": {}}, "confg"),
]


def read(stage: str, job: Any) -> None:
    read_parts(job, CONFIGS[stage], INPUTS[stage])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("change", "said"), WRONG)
def test_a_job_that_is_none(stage: str, change: Any, said: str) -> None:
    read(stage, GOOD[stage] | {"out": "out"})
    job = {"out": "out"} | GOOD[stage] | change if isinstance(change, dict) else change
    with pytest.raises(UserError) as told:
        read(stage, job)
    assert said in str(told.value) and told.value.fix


@pytest.mark.parametrize("stage", STAGES)
def test_every_input_is_asked_for_by_name(stage: str) -> None:
    for name, field in INPUTS[stage].model_fields.items():
        if field.is_required():
            job = GOOD[stage] | {"out": "out"}
            job["inputs"] = {key: value for key, value in GOOD[stage]["inputs"].items() if key != name}
            with pytest.raises(UserError) as told:
                read(stage, job)
            assert f"  inputs.{name}: " in told.value.what


@pytest.mark.parametrize(
    "content",
    [None, b"{", b"\xff\xfe", b"[" * 100_000, b'{"out": "x", "config": {"benchmark": 5}}'],
    ids=["none", "half", "binary", "deep", "wrong"],
)
def test_a_file_that_is_no_job(tmp_path: Path, content: bytes | None) -> None:
    """The whole process, of the stage that begins the fastest; the file's name has a space and a line end."""
    job = tmp_path / "a job\n.json"
    if content is not None:
        job.write_bytes(content)
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    words = [sys.executable, "-m", "eval", str(job)]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr, done.stderr
    assert "a job\\n.json" in done.stderr
