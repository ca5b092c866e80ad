"""Models that lie elsewhere: the Hub's client against a server that speaks its protocol, and URLs through fsspec."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import UserError
from common.schema import absolute, is_remote
from models.weights.fetch import fetch
from tests.hub import Hub

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"not read here",
    "README.md": b"# not wanted",
    "pytorch_model.bin": b"not wanted either",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub("org/tiny", FILES)
    yield hub
    hub.close()


def ask(folder: Path, path: str, endpoint: str, **env: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as the conductor does: the Hub's client reads its environment when it is imported."""
    job = folder / "job.json"
    job.write_text(json.dumps({"path": path, "staging": str(folder / "staging")}))
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **env}
    return subprocess.run(
        [sys.executable, "-m", "models.weights.fetch", str(job)], env=env, capture_output=True, text=True, check=False
    )


def test_a_hub_id_is_fetched_once_and_found_again_offline(tmp_path: Path, hub: Hub) -> None:
    first = ask(tmp_path, "org/tiny", hub.url)
    assert first.returncode == 0, first.stderr
    folder = Path(json.loads(first.stdout))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        n: FILES[n] for n in ("config.json", "model.safetensors")
    }
    assert "fetching 2 files" in first.stderr
    hub.asked.clear()
    again = ask(tmp_path, "org/tiny", hub.url)
    assert again.stdout == first.stdout and not any("resolve" in line and "GET" in line for line in hub.asked)
    for more in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        offline = ask(tmp_path, "org/tiny", hub.url, **more)
        assert offline.stdout == first.stdout, offline.stderr
        assert "using the copy" in offline.stderr


def test_what_the_hub_does_not_have(tmp_path: Path, hub: Hub) -> None:
    done = ask(tmp_path, "org/other", hub.url)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "the Hub does not give this model" in done.stderr and "hf auth login" in done.stderr
    done = ask(tmp_path, "org/other", "http://127.0.0.1:9")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "no such folder, and no model of this name can be fetched" in done.stderr


def test_room_is_asked_for_before_the_first_byte(tmp_path: Path, hub: Hub) -> None:
    hub.size = 10**15
    done = ask(tmp_path, "org/tiny", hub.url)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "org/tiny takes 2000000.0 GB" in done.stderr and "model.staging" in done.stderr
    assert not any("resolve" in line for line in hub.asked)


def test_a_folder_behind_a_url(tmp_path: Path) -> None:
    source, staging = tmp_path / "bucket", tmp_path / "staging"
    source.mkdir()
    for name, content in FILES.items():
        (source / name).write_bytes(content)
    url = f"file://{source}"
    folder = Path(fetch(url, staging=str(staging)))
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not (folder / "README.md").exists()
    before = (folder / "config.json").stat().st_ino
    assert Path(fetch(url, staging=str(staging))) == folder
    assert (folder / "config.json").stat().st_ino == before, "not fetched again"
    (source / "config.json").write_text("{}")
    assert (Path(fetch(url, staging=str(staging))) / "config.json").read_text() == "{}"
    assert [p.name for p in staging.iterdir()] == [folder.name], "nothing half-fetched is left"


def test_a_url_with_nothing_behind_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no model files here"):
        fetch(f"file://{tmp_path}/empty", staging=str(tmp_path / "staging"))
    with pytest.raises(UserError, match="cannot be listed"):
        fetch(f"file://{tmp_path}/nowhere", staging=str(tmp_path / "staging"))
    with pytest.raises(UserError, match=r"gs:// cannot be read here|cannot be listed"):
        fetch("gs://bucket/model", staging=str(tmp_path / "staging"))


def test_what_is_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_remote("google/gemma-3-270m-it") and is_remote("gs://bucket/model")
    for path in (str(tmp_path), "model", "a/b/c", "~/x", "./x", "../x", "x/", "/x", "x/..", "../../x", "~me/x", ".x/y"):
        assert not is_remote(path) and (path == "" or Path(absolute(path)).is_absolute())
    (tmp_path / "google" / "gemma-3-270m-it").mkdir(parents=True)
    assert not is_remote("google/gemma-3-270m-it"), "what is here is meant"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute("~/x") == absolute("./x") == absolute("google/../x") == str(tmp_path / "x")
