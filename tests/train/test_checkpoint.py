"""Checkpoints: what was saved comes back or is refused by name, and one that was cut off while it was saved does not
count."""

import random
import shutil
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from common.digests.saved import DIGESTS, write_digests
from common.errors import UserError
from convert.adapters.orbax import read_trained
from convert.config import ConvertConfig
from models.families import read_spec, rows
from tests.common.test_digests import DAMAGE
from train.checkpoint import Checkpoints
from train.config import TrainConfig, TrainInputs
from train.names import flat_names
from train.stage import run


def state(fill: float) -> nnx.State:
    return nnx.State(
        {
            "stacks": {
                "q": {
                    "w_lora_a": nnx.LoRAParam(jnp.full((3, 2), fill)),
                    "w_lora_b": nnx.LoRAParam(jnp.full((2, 4), fill)),
                }
            }
        }
    )


OPTIMIZER = optax.adam(0.1)
SETTINGS = {"rank": 2, "targets": ["q"], "weights": None}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Steps 2 to 6, of which two are kept."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2, SETTINGS)
    for step in (2, 4, 6):
        checkpoints.save(step, state(step), OPTIMIZER.init(state(step)), {"at": step})
    checkpoints.close()
    return tmp_path / "checkpoints"


def restored(folder: Path) -> tuple[int, float] | None:
    """Step and first value of what a new run begins from."""
    found = Checkpoints(folder, 2, SETTINGS).restore(state(0.0), OPTIMIZER.init(state(0.0)))
    return None if found is None else (found[0], float(flat_names(found[1])["q.lora_a"][0, 0]))


def test_the_latest_come_back(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["4", "6"]
    assert restored(saved) == (6, 6.0)
    shutil.rmtree(saved / "6")
    assert restored(saved) == (4, 4.0)


def test_damage_is_refused_by_name_and_said_how_to_go_on(saved: Path, tmp_path: Path) -> None:
    files = sorted(path.relative_to(saved) for path in (saved / "6").rglob("*") if path.is_file())
    assert len(files) > 10
    for number, file in enumerate(files):
        kind = [kind for kind in DAMAGE if kind != "zeros"][number % (len(DAMAGE) - 1)]
        copy = tmp_path / f"copy{number}"
        shutil.copytree(saved, copy)
        if (copy / file).stat().st_size == 0:
            kind = "grown"
        DAMAGE[kind](copy / file, random.Random(number))
        with pytest.raises(UserError, match="a damaged checkpoint") as told:
            restored(copy)
        assert str(copy / "6") in told.value.where and "from step 4" in told.value.fix, (kind, file)
        assert (copy / "6").is_dir(), "nothing is deleted"
        shutil.rmtree(copy / "6")
        assert restored(copy) == (4, 4.0)


@pytest.mark.parametrize("key", [*SETTINGS, "added"])
def test_another_setting_is_refused_by_name(saved: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"begun with {key} .*, now it is other") as told:
        Checkpoints(saved, 2, {**SETTINGS, key: "other"}).restore(state(0.0), OPTIMIZER.init(state(0.0)))
    assert told.value.where == str(saved) and restored(saved) == (6, 6.0)
    shutil.rmtree(saved / "6" / "settings")
    (saved / "6" / DIGESTS).unlink()
    write_digests(saved / "6")
    assert restored(saved) == (6, 6.0), "as an earlier version saved it"


def test_one_that_was_cut_off_while_saved_does_not_count(saved: Path) -> None:
    (saved / "6" / DIGESTS).unlink()
    saved.with_name("checkpoint.saving").write_text("6")
    assert restored(saved) == (4, 4.0)
    assert not (saved / "6").exists() and not saved.with_name("checkpoint.saving").exists()


def test_a_note_of_one_that_was_never_begun_is_no_matter(saved: Path) -> None:
    for content in ("8", "", "x", "6"):
        saved.with_name("checkpoint.saving").write_text(content)
        assert restored(saved) == (6, 6.0)


@pytest.fixture(scope="module")
def finished(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    config = TrainConfig.model_validate({"steps": 2, "batch_size": 4, "checkpoint_every": 1, "lora": {"rank": 2}})
    run(config, TrainInputs(model=str(base), data=str(data)), out)
    return out


def test_convert_believes_no_damaged_adapter(finished: Path, base: Path, tmp_path: Path) -> None:
    spec = read_spec(str(base))
    table = rows(spec, stacked=True)
    whole = read_trained(finished, ConvertConfig(), spec, table)
    files = [path for path in (finished / "checkpoints" / "2" / "trained").rglob("*") if path.stat().st_size > 0]
    files = [finished / "adapter.json", finished / "checkpoints" / "2" / DIGESTS, *filter(Path.is_file, files)]
    for number in range(60):
        chance = random.Random(number)
        out = tmp_path / "copy"
        shutil.copytree(finished, out)
        file = out / files[number % len(files)].relative_to(finished)
        before = file.read_bytes()
        for _ in range(chance.choice([1, 8])):
            DAMAGE["flipped"](file, chance)
        if file.read_bytes() != before:
            try:
                got = read_trained(out, ConvertConfig(), spec, table)
            except UserError as error:
                assert str(out) in error.where
            else:  # white space, or the name of a digest: nothing that counts
                assert got.digest == whole.digest and file.suffix == ".json"
        shutil.rmtree(out)
