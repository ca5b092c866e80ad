"""Rows that lie elsewhere: a split of a dataset on the Hub, or the files behind a URL, to a folder on this machine.

`python -m data.fetch JOB.json` prints the folder of {"path", "split", "name", "revision"}: what the conductor starts.
The datasets library says which files a split is made of. They are kept as they are, at one commit: every row has its
file and line, and a run's fingerprint is of their content.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from datasets import load_dataset_builder
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from common.errors import UserError
from common.files import PARTIAL, read_json, write_json
from common.progress import log
from common.stage import report
from data.config import KINDS
from data.remote import from_url
from models.fetch import check_room, first_line

_DATASET = re.compile(r"(?:hf://datasets/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?/?")
_FILE = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<revision>[^/]+)/(?P<path>.+)")
_ROOM = "XDG_CACHE_HOME"


def cache() -> Path:
    """Where fetched rows are kept."""
    return Path(os.environ.get(_ROOM) or "~/.cache").expanduser() / "tapeout" / "rows"


def fetch(path: str, split: str | None = None, name: str | None = None, revision: str | None = None) -> str:
    """The folder that a source's files are in once they are here. Raises UserError where they cannot be fetched."""
    if "://" in path and not path.startswith("hf://"):
        return from_url(path, cache())
    found = _DATASET.fullmatch(path)
    if found is None:
        fix = "write hf://datasets/OWNER/NAME; data.sources.files chooses among its files"
        raise UserError("not the name of a dataset", where=path, fix=fix)
    return _from_hub(found["repo"], split or "train", name, revision or found["revision"])


def _from_hub(repo: str, split: str, name: str | None, revision: str | None) -> str:
    kept = cache() / repo
    asked = kept / f"{revision or 'main'}-{name or 'default'}-{split}.json".replace("/", "_")
    try:
        about = HfApi().dataset_info(repo, revision=revision, files_metadata=True)
    except HfHubHTTPError as error:
        fix = "check the id and its revision; for a gated dataset, log in with: hf auth login"
        raise UserError(f"the Hub does not give this dataset: {first_line(error)}", where=repo, fix=fix) from error
    except Exception as error:  # of whichever HTTP client this version of the Hub's library uses
        folder = kept / read_json(asked)["folder"] if asked.is_file() else None
        if folder is None or not _is_whole(folder):
            what = f"no such file or folder, and no dataset of this name can be fetched ({first_line(error)})"
            fix = "check the path; or go online once, or copy the rows here and name their folder"
            raise UserError(what, where=repo, fix=fix) from error
        log(f"{repo}: the Hub is not reached; using the copy at {folder}")
        return str(folder)
    sha = about.sha or revision or "main"
    folder = kept / sha[:12] / (name or "default") / split
    if not _is_whole(folder):
        sizes = {s.rfilename: s.size or 0 for s in about.siblings or []}
        _download(repo, sha, _files(repo, sha, name, split), sizes, folder)
    asked.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked, {"folder": str(folder.relative_to(kept))})
    return str(folder)


def _is_whole(folder: Path) -> bool:
    """Whether it is there, and so is what its links point at."""
    return folder.is_dir() and all(path.exists() for path in folder.rglob("*"))


def _files(repo: str, sha: str, name: str | None, split: str) -> list[tuple[str, str, str]]:
    """(repository, revision, path) of each file of a split."""
    try:
        config: Any = load_dataset_builder(repo, name=name, revision=sha).config
    except (ValueError, DatasetsError, OSError) as error:
        what = " ".join(str(error).split())
        raise UserError(
            f"not a dataset of files of rows: {what}", where=repo, fix="check its page, and data.sources.name"
        ) from error
    splits = {str(key): list(files) for key, files in (config.data_files or {}).items()}
    if split not in splits:
        raise UserError(f"no split {split!r}", where=repo, fix=f"data.sources.split: one of {', '.join(splits)}")
    found = [_FILE.fullmatch(url) for url in splits[split]]
    others = [url for url, one in zip(splits[split], found, strict=True) if one is None or not _is_rows(one["path"])]
    if others:
        known = ", ".join(sorted(KINDS))
        raise UserError(f"its rows are in {others[0]}", where=repo, fix=f"convert it: known endings are {known}")
    return [(one["repo"], unquote(one["revision"]), unquote(one["path"])) for one in found if one is not None]


def _is_rows(path: str) -> bool:
    return Path(path).suffix.lower() in KINDS


def _download(repo: str, sha: str, files: list[tuple[str, str, str]], sizes: dict[str, int], folder: Path) -> None:
    """Into the Hub's own cache; `folder` gets links, and is only there when it is whole."""
    missing = [
        path
        for of, revision, path in files
        if not isinstance(try_to_load_from_cache(of, path, revision=revision, repo_type="dataset"), str)
    ]
    total = sum(sizes.get(path, 0) for path in missing)
    check_room(cache(), total, repo, "HF_HOME")
    if missing:
        log(f"{repo} at {sha[:12]}: fetching {len(missing)} files, {total / 1e9:.2f} GB")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", suffix=PARTIAL, dir=folder.parent))
    try:
        for of, revision, path in files:
            link = beside / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(hf_hub_download(of, path, revision=revision, repo_type="dataset")).absolute())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
    except Exception as error:  # as above
        fix = "run the same command again: what has come is kept"
        raise UserError(f"the download stopped: {first_line(error)}", where=repo, fix=fix) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def main() -> int:
    try:
        print(fetch(**read_json(Path(sys.argv[1]))))
    except Exception as error:
        return report(error, os.environ.get("TAPEOUT_DEBUG") == "1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
