"""A benchmark from a git URL: pinned, fetched once, kept; and what is said when it cannot be."""

import shutil
import subprocess
from pathlib import Path

import pytest

from common.benchmark.layouts import load_benchmark, read_benchmark
from common.errors import UserError
from eval.benchmarks.checkout import fetched_folder as folder_of
from eval.benchmarks.graded import open_benchmark
from eval.config import EvalConfig
from tests.eval.benchmarks.git_http import repository_over_http


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(benchmark_folder: Path, tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    shutil.copytree(benchmark_folder, place / "dataset_tiny")
    _git(place, "init", "-q")
    _git(place, "add", ".")
    _git(place, "commit", "-qm", "first")
    _git(place, "tag", "v1")
    (place / "dataset_tiny" / "Prob001_register_prompt.txt").write_text("other words\n")
    _git(place, "commit", "-qam", "second")
    return place


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _config(repository: Path, revision: str | None) -> EvalConfig:
    return EvalConfig(benchmark=f"file://{repository}", revision=revision, dataset="dataset_tiny")


def test_a_revision_is_what_is_scored(repository: Path, benchmark_folder: Path) -> None:
    first = read_benchmark(folder_of(_config(repository, "v1")))
    assert first.digest == load_benchmark(str(benchmark_folder)).digest
    for revision in (_git(repository, "rev-parse", "HEAD"), _git(repository, "rev-parse", "--short", "HEAD")):
        second = read_benchmark(folder_of(_config(repository, revision)))
        assert second.problems[0].prompt == "other words\n"


def test_once_fetched_the_source_may_be_gone(repository: Path) -> None:
    kept = folder_of(_config(repository, "v1"))
    shutil.rmtree(repository)
    assert folder_of(_config(repository, "v1")) == kept and kept.path.is_dir()
    with pytest.raises(UserError, match="could not be fetched") as error:
        folder_of(_config(repository, "v2"))
    assert "network" in error.value.fix and f"file://{repository}" in error.value.where
    assert not list(kept.checkout.parent.glob("fetching-*"))


def test_a_moving_or_impossible_target_is_refused(repository: Path) -> None:
    for revision, message in ((None, "needs a revision"), ("--upload-pack=x", "not a revision"), ("v9", "fetched")):
        with pytest.raises(UserError, match=message):
            folder_of(_config(repository, revision))
    with pytest.raises(UserError, match="is of a git URL"):
        folder_of(EvalConfig(benchmark=str(repository), revision="v1"))
    with pytest.raises(UserError) as error:
        read_benchmark(folder_of(EvalConfig(benchmark=f"file://{repository}", revision="v1")))
    assert "dataset_tiny" in error.value.fix


@pytest.mark.parametrize("smart", [True, False])
def test_over_http(repository: Path, benchmark_folder: Path, tmp_path: Path, smart: bool) -> None:
    """By a tag, a commit and its short form, from git's server and from one that only hands out files."""
    commit = _git(repository, "rev-parse", "HEAD")
    with repository_over_http(repository, tmp_path / "served.git", smart) as url:
        found = {
            revision: read_benchmark(folder_of(EvalConfig(benchmark=url, revision=revision, dataset="dataset_tiny")))
            for revision in ("v1", commit, commit[:10])
        }
        with pytest.raises(UserError, match="could not be fetched"):
            folder_of(EvalConfig(benchmark=f"{url}.absent", revision="v1"))
    assert found["v1"].digest == load_benchmark(str(benchmark_folder)).digest
    assert found[commit].problems[0].prompt == found[commit[:10]].problems[0].prompt == "other words\n"
    kept = folder_of(EvalConfig(benchmark=url, revision="v1", dataset="dataset_tiny"))  # the server is gone
    assert read_benchmark(kept).digest == found["v1"].digest


def test_a_repository_cannot_send_other_files(repository: Path, tmp_path: Path) -> None:
    """Links that a repository holds, as git checks them out: prompts, scripts of the official wording, a dataset."""
    secret = tmp_path / "secret"
    secret.write_text("prompts = {'tiny': 'words of somebody else'}\n")
    dataset, scripts = repository / "dataset_spec-to-rtl", repository / "scripts"
    shutil.copytree(repository / "dataset_tiny", dataset)
    scripts.mkdir()
    _git(repository, "add", ".")
    _git(repository, "commit", "-qm", "base")
    _git(repository, "tag", "base")
    prompt, url = dataset / "Prob001_register_prompt.txt", f"file://{repository}"
    links = {
        "prompt": (prompt, secret),
        "git": (prompt, "../.git/config"),
        "script": (scripts / "sv-generate", secret),
        "dataset": (dataset, tmp_path),
    }
    for tag, (path, target) in links.items():
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target)
        _git(repository, "add", ".")
        _git(repository, "commit", "-qm", tag)
        _git(repository, "tag", tag)
        _git(repository, "reset", "-q", "--hard", "base")
        scripts.mkdir(exist_ok=True)
        words = "official" if tag == "script" else "plain"
        config = EvalConfig(benchmark=url, revision=tag, dataset=dataset.name, prompts=words)
        with pytest.raises(UserError, match=r"leaves the checkout|\.git") as error:
            open_benchmark(config)
        assert "somebody" not in str(error.value)
    assert open_benchmark(EvalConfig(benchmark=url, revision="base", dataset=dataset.name)).problems
