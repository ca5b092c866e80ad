"""What the stage writes is read the same by 1, 2 and 4 processes, packed or padded to buckets, to the same loss."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.adapters.lora import add_lora
from models.config import HardwareConfig
from models.folder.load import load_decoder
from models.mesh import make_mesh
from models.text.packed_rows import buckets_of, open_batches
from train.config import LoraConfig, TrainConfig
from train.step import make_trainer

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "recipes" / "assets" / "starter" / "train.jsonl"
Prepare = Callable[..., dict[str, Any]]
READER = """
import hashlib, json, sys
from models.text.packed_rows import open_batches
job = json.loads(sys.argv[1])
batches = open_batches(**job["open"])
if job["state"]:
    batches.set_state(job["state"])
digests = []
for _ in range(job["steps"]):
    batch = next(batches)
    rows = [b"".join(batch[name][b].tobytes() for name in sorted(batch)) for b in range(len(batch["tokens"]))]
    digests.append([hashlib.sha256(row).hexdigest() for row in rows])
print(json.dumps({"digests": digests, "state": batches.get_state()}))
"""


def read(folder: Path, steps: int, processes: int, state: Any = None, **more: Any) -> tuple[str, Any]:
    """sha256 over every row of every global batch in order, read by so many processes at a time."""
    children = []
    for index in range(processes):
        how = {"folder": str(folder), "batch_size": 4, "max_length": 384, "seed": 3, **more}
        job = {"open": {**how, "process_index": index, "process_count": processes}, "steps": steps, "state": state}
        command = [sys.executable, "-c", READER, json.dumps(job)]
        children.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    answers = [json.loads(child.communicate()[0]) for child in children]
    assert not any(child.returncode for child in children)
    order = [row for step in range(steps) for answer in answers for row in answer["digests"][step]]
    assert len({json.dumps(answer["state"]) for answer in answers}) == 1
    return hashlib.sha256("".join(order).encode()).hexdigest(), answers[0]["state"]


@pytest.mark.parametrize("packing", ["best-fit", "none"])
def test_the_order_is_the_same_for_any_number_of_reading_processes(
    prepare: Prepare, tmp_path: Path, packing: str
) -> None:
    figures = prepare(str(ROWS), limit=60, max_length=384, packing=packing)
    more = {"buckets": figures["buckets"]} if packing == "none" else {}
    folder = tmp_path / "out" / "train"
    (one, _), (two, _), (four, _) = (read(folder, 12, processes, **more) for processes in (1, 2, 4))
    assert one == two == four
    prepare(str(ROWS), name="again", limit=60, max_length=384, packing=packing)
    written = [sorted((tmp_path / name / "train").iterdir()) for name in ("out", "again")]
    assert [f.read_bytes() for f in written[0]] == [f.read_bytes() for f in written[1]]
    assert read(folder, 12, 1, workers=2, **more)[0] == one


def test_a_restart_goes_on_with_the_rows_not_yet_seen_whatever_the_processes(prepare: Prepare, tmp_path: Path) -> None:
    prepare(str(ROWS), limit=60, max_length=384)
    folder = tmp_path / "out" / "train"
    whole = list(open_batches(folder, batch_size=4, max_length=384, seed=3, epochs=1))
    first = open_batches(folder, batch_size=4, max_length=384, seed=3)
    for _ in range(2):
        next(first)
    rest, _ = read(folder, 3, 2, state=first.get_state())
    wanted = [
        hashlib.sha256(b"".join(one[name][b].tobytes() for name in sorted(one))).hexdigest()
        for one in whole[2:5]
        for b in range(4)
    ]
    assert rest == hashlib.sha256("".join(wanted).encode()).hexdigest()


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_restart_at_any_step_sees_the_rest_exactly(prepare: Prepare, tmp_path: Path, epochs: int) -> None:
    prepare(str(ROWS), limit=60, max_length=384)
    options: dict[str, Any] = {"batch_size": 4, "max_length": 384, "seed": 3, "epochs": epochs}

    def digest(batch: dict[str, np.ndarray]) -> str:
        return hashlib.sha256(b"".join(batch[name].tobytes() for name in sorted(batch))).hexdigest()

    batches = open_batches(tmp_path / "out" / "train", **options)
    states, whole = [batches.get_state()], []
    for batch in batches:
        whole.append(digest(batch))
        states.append(batches.get_state())
    assert len(set(whole)) == len(whole) > 5 * epochs
    for step, state in enumerate(states):
        again = open_batches(tmp_path / "out" / "train", **options)
        again.set_state(state)
        assert [digest(batch) for batch in again] == whole[step:]


def test_unpacked_batches_are_as_long_as_the_bucket_they_need(prepare: Prepare, tmp_path: Path) -> None:
    figures = prepare(str(ROWS), limit=60, max_length=384, packing="none")
    assert tuple(figures["buckets"]) == buckets_of(384) == (128, 256, 384)
    options: Any = {"batch_size": 2, "max_length": 384, "seed": 1, "epochs": 1}
    padded = list(open_batches(tmp_path / "out" / "train", **options))
    bucketed = list(open_batches(tmp_path / "out" / "train", **options, buckets=buckets_of(384)))
    rooms = {batch["tokens"].shape[1] for batch in bucketed}
    assert rooms <= {128, 256, 384} and len(rooms) > 1
    for long, short in zip(padded, bucketed, strict=True):
        room = short["tokens"].shape[1]
        assert all(np.array_equal(long[name][:, :room], short[name]) for name in long)
        assert not long["segments"][:, room:].any()
        longest = int((short["segments"] > 0).sum(axis=1).max())
        assert room == min(bucket for bucket in buckets_of(384) if bucket >= longest)


def test_packed_and_unpacked_rows_give_the_same_loss(prepare: Prepare, tmp_path: Path, tokenizer_folder: str) -> None:
    """Of the same rows through the whole stage: packed, padded to max_length, and padded to buckets."""
    config = TrainConfig(lora=LoraConfig(rank=2))
    decoder = load_decoder(tokenizer_folder, "float32", True)
    decoder = add_lora(decoder, make_mesh(HardwareConfig()), 2, 4.0, config.lora.targets, 0)
    graph, trained, frozen = nnx.split(decoder, nnx.LoRAParam, ...)
    trainer = make_trainer(config, decoder.spec, graph, "float32", 10)

    def loss(name: str, packing: str, **more: Any) -> tuple[float, float]:
        prepare(str(ROWS), name=name, limit=24, max_length=512, packing=packing)
        batches = open_batches(tmp_path / name / "train", batch_size=4, max_length=512, seed=0, epochs=1, **more)
        parts = [trainer.evaluate(trained, frozen, jax.tree.map(jnp.asarray, batch)) for batch in batches]
        total, count = (sum(float(part[i]) for part in parts) for i in range(2))
        return total / count, count

    packed, padded, bucketed = (
        loss("packed", "best-fit"),
        loss("padded", "none"),
        loss("bucketed", "none", buckets=buckets_of(512)),
    )
    assert packed[1] == padded[1] == bucketed[1] > 500
    assert packed[0] == pytest.approx(padded[0], abs=1e-5) and bucketed[0] == pytest.approx(padded[0], abs=1e-5)
