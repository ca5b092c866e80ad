"""Servers: in the foreground until stopped, beside an eval only as long as it lasts, and never left behind."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.processes import children_of

MODEL = Path(__file__).resolve().parents[2] / "recipes" / "assets" / "tiny-gemma4"
Start = Callable[..., "subprocess.Popen[str]"]


def announced(child: "subprocess.Popen[str]") -> str:
    """The address that the server announces once it is ready."""
    assert child.stdout is not None
    said = []
    for line in child.stdout:
        said.append(line)
        if line.startswith("serving "):
            return line.split(" at ")[1].strip()
    pytest.fail("".join(said))


def is_closed(url: str) -> bool:
    try:
        httpx.get(f"{url}/models", timeout=5)
    except httpx.TransportError:
        return True
    return False


FLAGS = ("serve", "--model", MODEL, "--port", "0", "--set", "slots=2", "--set", "max_length=64")


def test_a_server_from_flags_alone_serves_until_it_is_stopped(tmp_path: Path, start: Start):
    child = start(*FLAGS)
    url = announced(child)
    assert [model["id"] for model in httpx.get(f"{url}/models").json()["data"]] == ["tiny-gemma4"]
    child.send_signal(signal.SIGINT)
    assert child.wait() == 0
    assert is_closed(url)
    assert list(tmp_path.iterdir()) == []


def test_a_server_ends_well_from_its_first_moment(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch):
    """Its address is written, and neither it nor the conductor has come any further."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    child = start(*FLAGS)
    while not list(tmp_path.glob("tapeout-*/endpoint.json")):
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    said = child.communicate()[0]
    assert child.returncode == 0 and "Traceback" not in said, said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_server_that_is_killed_is_told(start: Start):
    child = start(*FLAGS)
    announced(child)
    (server,) = children_of(child.pid)
    os.kill(server, signal.SIGKILL)
    assert child.wait() == 1 and child.stdout and "serve was killed from outside" in child.stdout.read()


@pytest.mark.slow
def test_a_recipe_is_served_at_a_port(small: Path, start: Start, tapeout):
    assert tapeout("run", small, "--to", "convert").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = announced(start("serve", small, "--port", str(port)))
    assert url == f"http://127.0.0.1:{port}/v1"
    assert [model["id"] for model in httpx.get(f"{url}/models").json()["data"]] == ["small"]


def test_a_served_base_does_not_outlive_its_eval(small: Path, tmp_path: Path, start: Start, tapeout):
    """A stopped eval leaves its samples for the next attempt, and no server."""
    child = start("run", small, "--set", "eval.samples=60")
    url = announced(child)
    root = tmp_path / "runs" / "small"
    while not list(root.glob("eval-base/*.partial/samples.jsonl")):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 143
    assert is_closed(url)
    assert not (root / ".scratch").exists() or list((root / ".scratch").iterdir()) == []
    assert list(root.glob("eval-base/*.partial/samples.jsonl"))
    assert not list(root.glob("eval-base/*/record.json"))


def test_a_missing_model_file_is_told_by_the_server(small: Path, tmp_path: Path, tapeout):
    """The base is scored first; what its server says is on the screen, and nothing is left of the attempt."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in MODEL.iterdir():
        if file.suffix != ".safetensors":
            (broken / file.name).write_bytes(file.read_bytes())
    done = tapeout("run", small, "--set", "model.path=broken")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr and "eval-base" in done.stderr
    assert not list((tmp_path / "runs" / "small").glob("eval-base/*"))
    assert json.loads(next((tmp_path / "runs" / "small" / "data").glob("*/record.json")).read_text())
