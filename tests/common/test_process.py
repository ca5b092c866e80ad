"""The one starter: a child's path, the signals that reach it, and its end when its parent is killed."""

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import process
from tests.processes import PATIENCE_S, alive, left_of, said_by
from tests.test_import_directions import FILES, REPO

LIBRARY = os.path.dirname(os.__file__)
PARENT = """
import os, signal, sys, time
from common import process
{before}
child = process.start("http.server", {port}, "--bind", "127.0.0.1", with_parent={with_parent}, stdout=-3, stderr=-3)
print(child.pid, flush=True)
{after}
"""


def _starts_a_process(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
        return False
    starters = ("exec", "spawn", "posix_spawn", "fork")
    of_os = node.value.id == "os" and node.attr.startswith(starters)
    return of_os or node.value.id == "multiprocessing" or (node.value.id, node.attr) == ("sys", "executable")


def test_nobody_else_starts_a_python() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    found = {path for path, tree in trees.items() if any(map(_starts_a_process, ast.walk(tree)))}
    assert found == {REPO / "common" / "process.py"}


@pytest.mark.parametrize("site", [True, False])
@pytest.mark.parametrize("given", [None, "", ".", ":", "{here}", "rel", "./rel", "{other}", ":{other}:.", "{here}/rel"])
def test_the_path_of_a_child(
    given: str | None, site: bool, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch
) -> None:
    """The library's, then ours, and of PYTHONPATH what is elsewhere, though it be below; but nothing at all of here."""
    other = str(tmp_path_factory.mktemp("plugin"))
    (tmp_path / "rel").mkdir()
    (tmp_path / "here").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given.format(here=tmp_path, other=other))
    child = process.start("site", with_parent=True, site=site, stdout=subprocess.PIPE)
    said = child.communicate()[0].decode()
    assert child.returncode in (0, 1, 2, 3), said
    path = ast.literal_eval(said[said.index("[") : said.index("]") + 1])
    assert path[:3] == [LIBRARY, f"{LIBRARY}/lib-dynload", str(REPO)]
    assert not {"", ".", str(tmp_path), "rel"} & set(path)
    kept = {"{other}": other, ":{other}:.": other, "{here}/rel": f"{tmp_path}/rel"}.get(given or "")
    here = [entry for entry in path if not entry.endswith(".__path_hook__")]  # a finder's name, no folder
    assert [entry for entry in here if entry.startswith((other, str(tmp_path)))] == ([kept] if kept and site else [])


def test_the_working_folder_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "alias").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    assert "PYTHONPATH" not in process.environment(PYTHONPATH=str(tmp_path / "alias"))
    assert process.environment({"PYTHONPATH": f"{tmp_path}{os.pathsep}"}) == {"PYTHONPATH": str(tmp_path)}


def _parent(
    with_parent: bool, before: str = "", after: str = "time.sleep(600)", port: int = 0
) -> "subprocess.Popen[str]":
    script = PARENT.format(before=before, after=after, with_parent=with_parent, port=port)
    return subprocess.Popen([sys.executable, "-c", script], cwd=REPO, stdout=subprocess.PIPE, text=True)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """Processes that are ended after the test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if alive(pid) and "http.server" in said_by(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("after", ["time.sleep(600)", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["later", "at once"])
def test_a_child_dies_with_its_parent(after: str, ended: list[int]) -> None:
    with _parent(with_parent=True, after=after) as parent:
        assert parent.stdout is not None
        ended.append(child := int(parent.stdout.readline()))
        parent.kill()
    assert left_of([child]) == []


def test_a_child_that_is_not_tied_to_its_parent_goes_on(ended: list[int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with _parent(with_parent=False, port=port) as parent:
        assert parent.stdout is not None
        ended.append(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + PATIENCE_S
    while not _listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_the_parent_ignores_or_holds_back_reaches_the_child(number: signal.Signals, ended: list[int]) -> None:
    before = (
        f"signal.signal({number.value}, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, [{number.value}])"
    )
    with _parent(with_parent=True, before=before) as parent:
        assert parent.stdout is not None
        ended.append(child := int(parent.stdout.readline()))
        os.kill(child, number)
        assert left_of([child]) == []
        parent.kill()


def _answered(module: str, folder: Path, job: str | None, **env: str) -> tuple[int, str, str]:
    words = [] if job is None else [folder / "job.json"]
    (folder / "job.json").write_text(job or "")
    child = process.start(
        module, *words, with_parent=True, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=-1
    )
    out, err = child.communicate()
    return child.returncode, out.decode(), err.decode()


def test_how_a_child_answers(tmp_path: Path) -> None:
    """JSON for people's programs; a user's error is one screen, and a traceback is for those who ask for it."""
    score = {"pass@1": 0.5, "per_problem": {"a": 1}, "per_problem_samples": {"a": 2}}
    (tmp_path / "summary.json").write_text(json.dumps(score))
    code, out, err = _answered("eval.score.gate", tmp_path, json.dumps({"run": str(tmp_path), "config": {"min": 0.6}}))
    assert code == 1 and json.loads(out)["passed"] is False and err == ""
    other, nowhere = "eval.score.rescore", json.dumps({"run": "nowhere", "config": {"benchmark": "b"}})
    code, out, err = _answered(other, tmp_path, nowhere)
    assert (code, out) == (2, "") and err.startswith("error: no score here") and "Traceback" not in err
    code, out, err = _answered(other, tmp_path, nowhere, TAPEOUT_DEBUG="1")
    assert (code, out) == (2, "") and "Traceback" in err
    code, out, err = _answered(other, tmp_path, None)
    assert (code, out) == (2, "") and "one job file is needed" in err
    code, out, err = _answered(other, tmp_path, "{")
    assert (code, out) == (2, "") and "JSON" in err and "Traceback" not in err
