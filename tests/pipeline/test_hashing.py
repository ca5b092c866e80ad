"""Weights are hashed once in a whole run: counted in every process, whatever code hashes them."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.pipeline.conftest import ASSETS, Tapeout

COUNTING = """\
import hashlib, os

own = hashlib.sha256


class Counting:
    def __init__(self, data=b"", **more):
        self.inner, self.size = own(data, **more), len(data)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def update(self, data):
        self.size += memoryview(data).nbytes
        self.inner.update(data)

    def hexdigest(self):
        found = self.inner.hexdigest()
        if self.size > 1 << 20:
            log = os.open(os.environ["HASHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(log, (found + "\\n").encode())
            os.close(log)
        return found


hashlib.sha256 = Counting
"""


@pytest.mark.parametrize("last", ["convert", pytest.param("eval", marks=pytest.mark.slow)])
def test_a_run_hashes_each_weight_file_once(small: Path, tmp_path: Path, tapeout: Tapeout, last: str) -> None:
    counting, hashed = tmp_path / "counting", tmp_path / "hashed"
    counting.mkdir()
    (counting / "sitecustomize.py").write_text(COUNTING)
    sets = ("train.steps=1", "eval.samples=1", "eval.max_tokens=4", "eval.score_base=false")
    changes = [part for each in sets for part in ("--set", each)]
    done = tapeout("run", small, "--to", last, *changes, PYTHONPATH=str(counting), HASHED=str(hashed))
    assert done.returncode == 0, done.stderr
    (merged,) = tmp_path.glob("runs/small/convert/*/model/model.safetensors")
    base = sha256(ASSETS / "tiny-gemma4" / "model.safetensors")
    counts = Counter(hashed.read_text().split())
    assert (counts[base], counts[sha256(merged)]) == (1, 1), "the base while it was planned, the merged while written"
    (about,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/small/convert/*/certificate.json"))
    (trained,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/small/train/*/adapter.json"))
    assert about["base_digest"] == trained["base_digest"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
