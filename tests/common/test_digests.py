"""Whatever happens to the bytes of a folder is named; figures that are no numbers are not written."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.digests.saved import DIGESTS, check_digests, check_seal, has_digests, sealed, write_digests
from common.errors import UserError
from common.files import write_json

FIX = "make it again"


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path, random.Random], object]] = {
    "flipped": flip,
    "cut": lambda path, _: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "grown": lambda path, _: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path, _: path.write_bytes(b""),
    "zeros": lambda path, _: path.write_bytes(bytes(path.stat().st_size)),
    "gone": lambda path, _: path.unlink(),
    "beside": lambda path, _: path.with_name("new").write_bytes(b"x"),
    "renamed": lambda path, _: path.rename(path.with_name("other")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chance = random.Random(0)
    for name in ("a", "below/b", "below/deep/c"):
        path = tmp_path / "saved" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(300))
    assert not has_digests(tmp_path / "saved")
    write_digests(tmp_path / "saved")
    return tmp_path / "saved"


def test_what_was_saved_is_whole(folder: Path) -> None:
    check_digests(folder, FIX)
    shutil.move(folder, folder.with_name("elsewhere"))
    check_digests(folder.with_name("elsewhere"), FIX)


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["a", "below/b", "below/deep/c", DIGESTS])
def test_damage_is_named(folder: Path, kind: str, name: str) -> None:
    DAMAGE[kind](folder / name, random.Random(f"{kind} {name}"))
    with pytest.raises(UserError) as told:
        check_digests(folder, FIX)
    assert str(folder) in told.value.where and told.value.fix == FIX
    assert name == DIGESTS or kind == "beside" or name.rsplit("/", 1)[0] in told.value.what


def test_damage_elsewhere_is_of_no_concern(folder: Path) -> None:
    flip(folder / "a", random.Random(0))
    check_digests(folder, FIX, below=("below",))
    flip(folder / "below" / "b", random.Random(0))
    with pytest.raises(UserError, match="below/b has other bytes"):
        check_digests(folder, FIX, below=("below",))


values = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), values), st.data())
def test_a_seal_is_of_one_content(value: dict[str, object], data: st.DataObject) -> None:
    saved = json.loads(json.dumps(sealed(value)))
    check_seal(saved, Path("x.json"), FIX)
    key = data.draw(st.text().filter(lambda key: key != "sha256"))
    saved[key] = [saved.get(key), "changed"]
    with pytest.raises(UserError, match="is not what was saved"):
        check_seal(saved, Path("x.json"), FIX)


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), float("-inf")])
def test_a_figure_that_is_no_number_is_refused(tmp_path: Path, figure: float) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(UserError, match=r"scores\.1\.pass is (nan|inf|-inf)"):
        write_json(path, {"loss": 1.0, "scores": [0.5, {"pass": figure}]})
    assert json.loads(path.read_text()) == {"loss": 1.0}, "what was there stays"
