"""A benchmark from a git URL with a pinned revision: fetched once and kept, no network after that."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from common.benchmark.folder import Folder, benchmark_folder, is_url, kept_checkout
from common.errors import UserError
from eval.config import EvalConfig

_PATIENCE_S = 600.0


def _git(folder: Path, *arguments: str) -> str | None:
    """Run git in `folder`; its last words where it failed."""
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, env=env, timeout=_PATIENCE_S
        )
    except FileNotFoundError:
        return "git is not installed"
    except subprocess.TimeoutExpired:
        return f"git gave no answer within {_PATIENCE_S:.0f} s"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return (said or [f"git ended with {done.returncode}"])[-1] if done.returncode else None


def _fetch(url: str, revision: str, folder: Path) -> str | None:
    """Check `revision` out into `folder`, alone where the server allows it; git's words where neither way worked."""
    steps = [("init", "--quiet"), ("remote", "add", "origin", "--", url)]
    failed = next(filter(None, (_git(folder, *step) for step in steps)), None)
    if failed:
        return failed
    if _git(folder, "fetch", "--quiet", "--depth", "1", "origin", revision) is None:
        return _git(folder, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    whole = _git(folder, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    return whole or _git(folder, "checkout", "--quiet", "--detach", revision, "--")


def fetched(url: str, revision: str | None) -> Path:
    """The checkout of `url` at `revision`; UserError where it is not kept and cannot be fetched."""
    if not revision:
        raise UserError(
            "a benchmark from a repository needs a revision: a score of a moving target compares with nothing",
            where="eval.revision",
            fix="name a commit or tag, e.g. --set eval.revision=c498220",
        )
    if revision.startswith("-"):
        raise UserError(f"not a revision: {revision}", where="eval.revision", fix="name a commit or tag")
    final = kept_checkout(url, revision)
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="fetching-", dir=final.parent))
    try:
        failed = _fetch(url, revision, partial)
        if failed:
            raise UserError(
                f"the benchmark could not be fetched: {failed}",
                where=f"eval.benchmark {url} at {revision}",
                fix="check the address, the revision and the network (once fetched, it is kept and none is needed),\n"
                "         or point eval.benchmark at a checkout on this machine",
            )
        if not final.is_dir():
            os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def fetched_folder(config: EvalConfig) -> Folder:
    """Where the benchmark's problems lie on this machine, fetched if need be. Raises UserError for what is not there or
    cannot be fetched."""
    if is_url(config.benchmark):
        fetched(config.benchmark, config.revision)
    elif config.revision is not None:
        raise UserError(
            "a revision is of a git URL, and the benchmark is a folder",
            where="eval.revision",
            fix="check that revision out yourself, or give its URL as eval.benchmark",
        )
    return benchmark_folder(config.benchmark, config.dataset, config.revision)
